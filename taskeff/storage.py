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
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from taskeff.errors import StorageError

FULL = "the storage is full"
_SAFE_PART = re.compile(r"[A-Za-z0-9._-]+")


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


class Store:
    """Files below one URI (`results/`, `s3://bucket/prefix`, `gs://...`), addressed by parts."""

    def __init__(self, uri: str):
        self.uri = str(uri).rstrip("/") or "/"
        try:
            self._fs, root = fsspec.core.url_to_fs(self.uri)
        except (ValueError, ImportError) as error:
            raise StorageError(f"storage {redact(self.uri)!r} cannot be opened: {error}") from None
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
        """Write and remove a probe file.

        Raises:
            StorageError: naming the storage and what the file system answered.
        """
        probe = self.path(f".probe-{uuid.uuid4().hex}")
        try:
            self._make_parent(probe)
            self._fs.pipe_file(probe, b"")
            self._fs.rm_file(probe)
        except OSError as error:
            raise StorageError(
                f"storage {redact(self.uri)!r} is not writable ({_why(error)}); "
                "set `storage` to a folder or bucket you can write to"
            ) from None

    def exists(self, *parts: str) -> bool:
        """Whether the file or folder is there."""
        return self._fs.exists(self.path(*parts))

    def write_bytes(self, data: bytes, *parts: str) -> None:
        """Publish `data` at `parts`, whole or not at all."""
        target = self.path(*parts)
        try:
            self._make_parent(target)
            if not self.is_local:
                self._fs.pipe_file(target, data)
                return
            with _written_aside(target, data) as partial:
                os.replace(partial, target)
        except OSError as error:
            raise StorageError(f"cannot write {redact(target)}: {_why(error)}") from error

    def create(self, data: bytes, *parts: str) -> bool:
        """Publish `data` at `parts` unless something is there; whether it was published.

        Atomic on local file systems (a hard link) and on the object stores whose fsspec driver
        turns `mode="create"` into a conditional put (s3, gs, az).
        """
        target = self.path(*parts)
        try:
            self._make_parent(target)
            if not self.is_local:
                self._fs.pipe_file(target, data, mode="create")
                return True
            with _written_aside(target, data) as partial:
                os.link(partial, target)
        except FileExistsError:
            return False
        except OSError as error:
            raise StorageError(f"cannot write {redact(target)}: {_why(error)}") from error
        return True

    def read_bytes(self, *parts: str) -> bytes:
        """The file's content.

        Raises:
            StorageError: the file is missing or unreadable.
        """
        target = self.path(*parts)
        try:
            return self._fs.cat_file(target)
        except OSError as error:
            raise StorageError(f"cannot read {redact(target)}: {error}") from error

    def write_file(self, path: str, *parts: str) -> None:
        """Publish a copy of the local file at `path`, whole or not at all."""
        target = self.path(*parts)
        try:
            self._make_parent(target)
            if not self.is_local:
                self._fs.put_file(path, target)
                return
            partial = f"{target}.{uuid.uuid4().hex}.partial"
            shutil.copyfile(path, partial)
            os.replace(partial, target)
        except Exception as error:
            raise StorageError(f"cannot write {redact(target)}: {redact(str(error))}") from error

    @contextlib.contextmanager
    def open(self, *parts: str) -> Iterator[IO[bytes]]:
        """The file at `parts`, to be read in pieces.

        Raises:
            StorageError: it is missing, or reading inside fails.
        """
        target = self.path(*parts)
        try:
            with self._fs.open(target, "rb") as file:
                yield file
        except Exception as error:
            raise StorageError(f"cannot read {redact(target)}: {redact(str(error))}") from error

    def write_json(self, value: Any, *parts: str) -> None:
        """Publish `value` as canonical JSON."""
        self.write_bytes(canonical_json(value).encode(), *parts)

    def read_json(self, *parts: str) -> Any:
        """The JSON value at `parts`.

        Raises:
            StorageError: missing, or not JSON (a truncated file, say).
        """
        data = self.read_bytes(*parts)
        try:
            return json.loads(data)
        except ValueError as error:
            raise StorageError(f"{redact(self.path(*parts))} is not JSON: {error}") from None

    def write_table(self, table: pa.Table, *parts: str) -> None:
        """Publish a table as Parquet."""
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        self.write_bytes(buffer.getvalue(), *parts)

    def read_table(self, *parts: str) -> pa.Table:
        """The Parquet table at `parts`."""
        return pq.read_table(io.BytesIO(self.read_bytes(*parts)))

    def names(self, *parts: str) -> list[str]:
        """Names of the files and folders directly below `parts`, sorted; empty if it is absent."""
        try:
            entries = self._fs.ls(self.path(*parts), detail=False, refresh=True)
        except FileNotFoundError:
            return []
        return sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries)

    def remove(self, *parts: str) -> None:
        """Remove one file if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self.path(*parts))

    def remove_tree(self, *parts: str) -> None:
        """Remove the folder and everything below it, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm(self.path(*parts), recursive=True)

    def _make_parent(self, target: str) -> None:
        self._fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)


@contextlib.contextmanager
def _written_aside(target: str, data: bytes) -> Iterator[str]:
    """A whole file beside `target` that holds `data`; gone afterwards unless it was moved."""
    partial = f"{target}.{uuid.uuid4().hex}.partial"
    try:
        _write_through(partial, data)
        yield partial
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(partial)


def _write_through(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _why(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{FULL}; make room and run the same command again"
    return str(error)


def _protocols(filesystem: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def redact(uri: str) -> str:
    """`uri` without user name and password, fit for messages and artefacts."""
    return re.sub(r"(?<=://)[^/@]+@", "***@", uri)
