"""What memory a device has left; when the C heap keeps what is freed, when it gives it back.

Only glibc has the heap's calls and the need of them; elsewhere they do nothing.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_MOST = 2**31 - 1
# Where glibc's own rule ends once blocks of this size have come and gone.
_USUAL = {_TRIM_THRESHOLD: 64 << 20, _MMAP_THRESHOLD: 32 << 20}


@contextmanager
def kept_heap() -> Iterator[None]:
    """Inside, what is freed stays for what is allocated next.

    Forward and backward passes free hundreds of megabytes and allocate as many again: given back
    in between, they would have to be touched anew, page by page.
    """
    mallopt = _call("mallopt")
    if mallopt is None:
        yield
        return
    for setting in _USUAL:
        mallopt(setting, _MOST)
    try:
        yield
    finally:
        for setting, value in _USUAL.items():
            mallopt(setting, value)


def return_memory() -> None:
    """Give the system back what this process no longer uses.

    Buffers of ever new shapes leave glibc's heap full of holes: a worker that has measured a few
    rows was seen to hold 1.1 GB of nothing.
    """
    gc.collect()
    trim = _call("malloc_trim")
    if trim is not None:
        trim(0)


def keep_loaded() -> None:
    """Leave what this process holds by now out of every later collection.

    An imported torch and a loaded model are objects by the hundred thousand that stay as long as
    the process: to look at them all again was seen to take .24 s, four times a shard's scoring.
    """
    gc.collect()
    gc.freeze()


def free_bytes(device: torch.device) -> int:
    """Bytes to plan with: most of what is free on a GPU, half of what is free on the host."""
    if device.type == "cuda":
        import torch

        # What the allocator holds and nobody uses is free too.
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(0.8 * (torch.cuda.mem_get_info(device)[0] + held))
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (ValueError, OSError, AttributeError):
        return 4 << 30


def _call(name: str) -> Callable[..., int] | None:
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except TypeError:  # Windows has no library of the process itself
        return None
