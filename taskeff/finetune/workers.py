"""A job's workers: their process group, made where none is and left at the end, and their work."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import torch.distributed as dist
from accelerate import PartialState


def ensure_group(workers: PartialState) -> None:
    """A process group also where one process was started alone."""
    if not dist.is_initialized():
        backend = "nccl" if workers.device and workers.device.type == "cuda" else "gloo"
        store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)


def end_worker() -> NoReturn:
    """Leave the group and end this process with exit code 0; for workers that have no more to do.

    Without the interpreter's own end: there, about one time in thirty on two busy cores, a worker
    that had done all its work was aborted ("terminate called without an active exception").
    """
    if dist.is_initialized():
        dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def deal(lengths: Sequence[int], workers: int) -> list[list[int]]:
    """Row numbers for each worker, so that all have about the same length to work on."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    return [sorted(order[rank::workers]) for rank in range(workers)]
