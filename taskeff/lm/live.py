"""Bytes that tensors hold while code runs: counted, not timed, so the same every time."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Inside, counts the storages of tensors that operators return, real or fake ones.

    What is there before is not counted, but for `held`.

    Attributes:
        live: bytes of storages that are alive. peak: the most of them since `mark`.
    """

    def __init__(self, held: Iterable[Tensor] = ()):
        super().__init__()
        self.live = self.peak = 0
        self._sizes: dict[int, int] = {}
        self._see(held)

    def mark(self) -> int:
        """Forget the peak so far; the bytes alive now."""
        self.peak = self.live
        return self.live

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self._see(tree_leaves(out))
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        """Count `storage` as large as it is now."""
        key, size = storage._cdata, storage.nbytes()
        if key not in self._sizes:
            weakref.finalize(storage, self._gone, key)
        self.live += size - self._sizes.get(key, 0)
        self._sizes[key] = size
        self.peak = max(self.peak, self.live)

    def resized(self, storage: torch.UntypedStorage) -> None:
        """Count `storage` anew, if it is counted."""
        if storage._cdata in self._sizes:
            self._count(storage)

    def _see(self, values: Iterable[Any]) -> None:
        for value in values:
            if isinstance(value, Tensor):
                # A distributed tensor's own storage has no contents.
                self._count(getattr(value, "_local_tensor", value).untyped_storage())

    def _gone(self, key: int) -> None:
        self.live -= self._sizes.pop(key, 0)
