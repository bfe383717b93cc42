"""Artefacts in a folder or bucket: URIs, fingerprints, atomic publish. The only storage I/O.

A file is published whole or not at all: local files by rename, objects by a single put. What
consists of several files is published by writing its marker (`result.json`) last.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, TypeVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from taskeff.errors import StorageError, TaskeffError, redact
from taskeff.schema import decoded

log = logging.getLogger(__name__)

FULL = "the storage is full"
READS_AT_ONCE = 32
_SAFE_PART = re.compile(r"[A-Za-z0-9._-]+")
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}
PROTOCOLS = {"file", "local", "s3", "s3a", "gs", "gcs", "https", "hf", "az", "abfs", "abfss"}
"""What a URI may begin with; the others of fsspec run templates, open archives, reach shells."""
Key = TypeVar("Key")


def canonical_json(value: Any) -> str:
    """`value` as JSON whose bytes depend on nothing but its content: sorted keys, no NaN."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def digest(value: Any, length: int = 12) -> str:
    """The first `length` hex digits of the SHA-256 of `value`'s canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def safe_part(name: str) -> str:
    """`name`, fit to be one part of a path.

    Raises:
        StorageError: the name holds anything but `A-Z a-z 0-9 . _ -`, or is `.` or `..`.
    """
    if not _SAFE_PART.fullmatch(name) or name in {".", ".."}:
        raise StorageError(
            f"{name!r} cannot name a folder: use letters, digits, '.', '_' and '-' only"
        )
    return name


def filesystem_of(uri: str) -> tuple[Any, str]:
    """The file system of a path or URI, and the path there; the only place that opens one.

    Raises:
        StorageError: its protocol is none of `PROTOCOLS`, or it is a chain (`a::b`).
        Exception: whatever the file system raises.
    """
    protocol = fsspec.core.split_protocol(uri)[0] or "file"
    if "::" in uri or protocol not in PROTOCOLS:
        what = "chains (::)" if "::" in uri else f"{protocol}: locations"
        raise StorageError(
            f"{what} are not read; name a file, or one at s3://, gs://, abfs://, hf:// or https://"
        )
    return fsspec.core.url_to_fs(uri)


class Store:
    """Files below one URI (`results/`, `s3://bucket/prefix`, `gs://...`), addressed by parts.

    Raises:
        StorageError: from every method, whatever the file system raised; it names the URI without
            its credentials.
    """

    def __init__(self, uri: str):
        self.uri = str(uri).rstrip("/") or "/"
        with self._named("open"):
            self._fs, root = filesystem_of(self.uri)
        self._root = root.rstrip("/")
        self.is_local = "file" in _protocols(self._fs)
        if self.is_local:
            # Workers run in other folders; the URI must mean the same place there.
            self.uri = self._root

    def __reduce__(self):
        return Store, (self.uri,)

    def path(self, *parts: str) -> str:
        """The full path of the file or folder named by `parts`."""
        return "/".join([self._root, *parts])

    def child(self, *parts: str) -> Store:
        """The store below this one."""
        return Store("/".join([self.uri, *parts]))

    def check_writable(self) -> None:
        """Write and remove a probe file."""
        probe = f".probe-{uuid.uuid4().hex}"
        try:
            self.write_bytes(b"", probe)
            self.remove(probe)
        except StorageError as error:
            raise StorageError(
                f"storage {redact(self.uri)!r} is not writable ({error}); "
                "set `storage` to a folder or bucket you can write to"
            ) from error

    def exists(self, *parts: str) -> bool:
        """Whether the file or folder is there."""
        with self._named("look for", *parts):
            return self._fs.exists(self.path(*parts))

    def write_bytes(self, data: bytes, *parts: str) -> None:
        """Publish `data` at `parts`, whole or not at all."""
        target = self.path(*parts)
        with self._named("write", *parts):
            self._make_parent(target)
            if not self.is_local:
                self._fs.pipe_file(target, data)
                return
            with _written_aside(target, io.BytesIO(data)) as partial:
                os.replace(partial, target)

    def create(self, data: bytes, *parts: str) -> bool:
        """Publish `data` at `parts` unless something is there; whether it was published.

        Atomic on local file systems (a hard link) and on the object stores whose fsspec driver
        turns `mode="create"` into a conditional put (s3, gs, az).
        """
        target = self.path(*parts)
        with self._named("write", *parts), contextlib.suppress(FileExistsError):
            self._make_parent(target)
            if not self.is_local:
                self._fs.pipe_file(target, data, mode="create")
                return True
            with _written_aside(target, io.BytesIO(data)) as partial:
                os.link(partial, target)
                return True
        return False

    def find(self, *parts: str) -> bytes | None:
        """The file's content, None if it is missing; one request."""
        with self._named("read", *parts), contextlib.suppress(FileNotFoundError):
            return self._fs.cat_file(self.path(*parts))
        return None

    def read_bytes(self, *parts: str) -> bytes:
        """The file's content; a missing file is an error."""
        data = self.find(*parts)
        if data is None:
            raise StorageError(f"cannot read {self._name(*parts)}: there is no such file")
        return data

    def write_file(self, path: str, *parts: str) -> None:
        """Publish a copy of the local file at `path`, whole or not at all."""
        target = self.path(*parts)
        with self._named("write", *parts):
            self._make_parent(target)
            if not self.is_local:
                self._fs.put_file(path, target)
                return
            with open(path, "rb") as source, _written_aside(target, source) as partial:
                os.replace(partial, target)

    @contextlib.contextmanager
    def open(self, *parts: str) -> Iterator[IO[bytes]]:
        """The file at `parts`, to be read in pieces."""
        with self._named("read", *parts), self._fs.open(self.path(*parts), "rb") as file:
            yield file

    def write_json(self, value: Any, *parts: str) -> None:
        """Publish `value` as canonical JSON."""
        self.write_bytes(canonical_json(value).encode(), *parts)

    def read_json(self, *parts: str) -> Any:
        """The JSON value at `parts`; what is missing or no JSON (cut short, say) is an error."""
        return self._decoded(self.read_bytes(*parts), parts)

    def find_json(
        self,
        files: Mapping[Key, Sequence[str]],
        check: Callable[[Key, Any, str], None] = lambda *_: None,
    ) -> dict[Key, Any]:
        """The JSON values of those of `files` that are there, read side by side, a request each.

        A file that is cut short or that `check` refuses counts as missing, with a warning.

        Args:
            files: any key -> the parts of its file's path.
            check: called with key, value and the file's name; raises TaskeffError.
        """
        with ThreadPoolExecutor(READS_AT_ONCE) as pool:
            contents = list(pool.map(lambda parts: self.find(*parts), files.values()))
        found: dict[Key, Any] = {}
        for (key, parts), data in zip(files.items(), contents, strict=True):
            if data is not None:
                try:
                    value = self._decoded(data, parts)
                    check(key, value, self._name(*parts))
                    found[key] = value
                except TaskeffError as error:
                    log.warning("%s; it counts as missing", error)
        return found

    def write_table(self, table: pa.Table, *parts: str) -> None:
        """Publish a table as Parquet."""
        buffer = io.BytesIO()
        with self._named("write", *parts):
            pq.write_table(table, buffer)
        self.write_bytes(buffer.getvalue(), *parts)

    def read_table(self, *parts: str) -> pa.Table:
        """The Parquet table at `parts`."""
        data = self.read_bytes(*parts)
        with self._named("read", *parts):
            return pq.read_table(io.BytesIO(data))

    def names(self, *parts: str) -> list[str]:
        """Names of the files and folders directly below `parts`, sorted; empty if it is absent."""
        entries: list[str] = []
        with self._named("list", *parts), contextlib.suppress(FileNotFoundError):
            entries = self._fs.ls(self.path(*parts), detail=False, refresh=True)
        return sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries)

    def remove(self, *parts: str) -> None:
        """Remove one file if it is there."""
        with self._named("remove", *parts), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self.path(*parts))

    def remove_tree(self, *parts: str) -> None:
        """Remove the folder and everything below it, if it is there."""
        with self._named("remove", *parts), contextlib.suppress(FileNotFoundError):
            self._fs.rm(self.path(*parts), recursive=True)

    def _decoded(self, data: bytes, parts: Sequence[str]) -> Any:
        try:
            return decoded(data)
        except ValueError as error:
            raise StorageError(f"{self._name(*parts)} is not JSON: {error}") from None

    def _make_parent(self, target: str) -> None:
        # Object stores have no folders; asked for one, they make the bucket of a typing error.
        if not _OBJECT_STORES.intersection(_protocols(self._fs)):
            self._fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)

    def _name(self, *parts: str) -> str:
        return redact("/".join([self.uri, *parts]))

    @contextlib.contextmanager
    def _named(self, doing: str, *parts: str) -> Iterator[None]:
        """Whatever a file system raises inside, as one error that says what was asked for."""
        try:
            yield
        except Exception as error:  # botocore, aiohttp, gcsfs: each has its own
            raise StorageError(f"cannot {doing} {self._name(*parts)}: {_why(error)}") from error


@contextlib.contextmanager
def _written_aside(target: str, source: IO[bytes]) -> Iterator[str]:
    """A whole file beside `target`, a copy of `source`; gone afterwards unless it was moved."""
    partial = f"{target}.{uuid.uuid4().hex}.partial"
    try:
        with open(partial, "wb") as file:
            shutil.copyfileobj(source, file)
            file.flush()
            os.fsync(file.fileno())
        yield partial
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(partial)


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{FULL}; make room and run the same command again"
    return redact(" ".join(str(error).split())) or type(error).__name__


def _protocols(filesystem: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
