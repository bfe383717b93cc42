"""A bucket in memory that counts what is asked of it and fails as it is told to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class Bucket(MemoryFileSystem):
    """`bucket://NAME/...`; `asked` are the requests so far, `fault` what each of them raises."""

    protocol = "bucket"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    asked: ClassVar[list[tuple[str, str]]] = []
    fault: Exception | None = None

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).replace("bucket://", "memory://", 1))

    @classmethod
    def _ask(cls, what: str, path: str) -> None:
        cls.asked.append((what, str(path)))
        if cls.fault is not None:
            raise cls.fault

    def cat_file(self, path, *arguments, **options):
        self._ask("read", path)
        return super().cat_file(path, *arguments, **options)

    def pipe_file(self, path, *arguments, **options):
        self._ask("write", path)
        return super().pipe_file(path, *arguments, **options)

    def info(self, path, **options):
        self._ask("look", path)
        return super().info(path, **options)

    def exists(self, path, **options):
        self._ask("look", path)
        return super().exists(path, **options)

    def ls(self, path, *arguments, **options):
        self._ask("list", path)
        return super().ls(path, *arguments, **options)

    def rm_file(self, path):
        self._ask("remove", path)
        return super().rm_file(path)

    def rm(self, path, *arguments, **options):
        self._ask("remove", path)
        return super().rm(path, *arguments, **options)


def empty_bucket() -> Iterator[type[Bucket]]:
    """The bucket's class, empty and healthy; a fixture's body."""
    fsspec.register_implementation("bucket", Bucket, clobber=True)
    Bucket.store.clear()
    Bucket.pseudo_dirs[:] = [""]
    Bucket.asked.clear()
    Bucket.fault = None
    yield Bucket
    Bucket.fault = None
