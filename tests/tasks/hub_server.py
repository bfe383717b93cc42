"""A hub on loopback: enough of the real one's interface for the real clients.

`huggingface_hub`, `datasets` and `transformers` talk to it unchanged through `HF_ENDPOINT`. It
serves the repositories below a folder: `datasets/OWNER/NAME/...` and `models/OWNER/NAME/...`.
A repository with a file `.gated` refuses access as the hub refuses gated ones.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

REVISION = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = {REVISION, "main", "refs/convert/parquet"}
HIDDEN = ".gated"


class RefusalError(Exception):
    """An answer of the hub that is an error."""

    def __init__(self, status: int, code: str):
        super().__init__(code)
        self.status, self.code = status, code


class Hub(ThreadingHTTPServer):
    """The server; `asked` is every path it was asked for."""

    daemon_threads = True

    def __init__(self, root: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = root
        self.asked: list[str] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serve(root: Path) -> Iterator[Hub]:
    """A running hub over the repositories below `root`."""
    hub = Hub(root)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self._answer(body=True, sent=self.rfile.read(length))

    def _answer(self, *, body: bool, sent: bytes = b"") -> None:
        self.server.asked.append(self.path)
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        try:
            if parts == [""]:  # the front page: the hub is there
                self._json({}, body)
            elif parts[0] == "api":
                self._json(self._api(parts[1:], parse_qs(url.query), sent), body)
            else:
                self._file(*self._resolved(parts), body)
        except RefusalError as refusal:
            self.send_response(refusal.status)
            self.send_header("X-Error-Code", refusal.code)
            self.send_header("X-Error-Message", refusal.code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _repository(self, kind: str, owner: str, name: str) -> Path:
        folder = self.server.root / kind / owner / name
        if not folder.is_dir():
            raise RefusalError(401, "RepoNotFound")
        return folder

    def _api(self, parts: list[str], query: dict[str, list[str]], sent: bytes) -> object:
        if len(parts) < 3:
            raise RefusalError(404, "NotFound")
        kind, owner, name, *rest = parts
        folder = self._repository(kind, owner, name)
        gated = (folder / HIDDEN).exists()
        if rest[:1] == ["auth-check"]:
            if gated:
                raise RefusalError(403, "GatedRepo")
            return {}
        if rest[:1] in (["revision"], ["tree"], ["paths-info"]) and rest[1] not in REVISIONS:
            raise RefusalError(404, "RevisionNotFound")
        if rest[:1] == ["tree"]:
            below = folder.joinpath(*rest[2:])
            if not below.exists():
                raise RefusalError(404, "EntryNotFound")
            deep = query.get("recursive", ["false"])[0].lower() in {"true", "1"}
            found = below.rglob("*") if deep else below.iterdir()
            return [self._entry(folder, path) for path in sorted(found) if path.name != HIDDEN]
        if rest[:1] == ["paths-info"]:
            text = sent.decode()
            wanted = json.loads(text)["paths"] if text[:1] == "{" else parse_qs(text)["paths"]
            return [self._entry(folder, folder / p) for p in wanted if (folder / p).exists()]
        files = [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if p.is_file()]
        return {
            "id": f"{owner}/{name}",
            "sha": REVISION,
            "private": False,
            "gated": "manual" if gated else False,
            "tags": [],
            "siblings": [{"rfilename": file} for file in files if file != HIDDEN],
        }

    def _entry(self, folder: Path, path: Path) -> dict[str, object]:
        relative = path.relative_to(folder).as_posix()
        oid = hashlib.sha1(relative.encode()).hexdigest()
        if path.is_dir():
            return {"type": "directory", "oid": oid, "size": 0, "path": relative}
        return {"type": "file", "oid": oid, "size": path.stat().st_size, "path": relative}

    def _resolved(self, parts: list[str]) -> tuple[Path, str]:
        kind = parts.pop(0) if parts[0] == "datasets" else "models"
        owner, name, _, revision, *path = parts
        folder = self._repository(kind, owner, name)
        if (folder / HIDDEN).exists():
            raise RefusalError(403, "GatedRepo")
        if revision not in REVISIONS:
            raise RefusalError(404, "RevisionNotFound")
        file = folder.joinpath(*path)
        if not file.is_file():
            raise RefusalError(404, "EntryNotFound")
        return file, hashlib.sha1(file.read_bytes()).hexdigest()

    def _json(self, value: object, body: bool) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"}, body)

    def _file(self, file: Path, etag: str, body: bool) -> None:
        data, status = file.read_bytes(), 200
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": REVISION, "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range")
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last or len(data) - 1), len(data) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            data, status = data[start : end + 1], 206
        self._send(status, data, headers, body)

    def _send(self, status: int, data: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)
