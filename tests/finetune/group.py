"""Several workers on this machine, started as torchrun starts them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import torch
from torch import multiprocessing

from taskeff.finetune.workers import end_worker


def run_group(n: int, function: Callable[..., None], *arguments: Any) -> None:
    """`function(*arguments)` in `n` processes that can reach each other; raises what one raises."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.spawn(_worker, (n, port, function, arguments), nprocs=n)


def _worker(rank: int, n: int, port: int, function: Callable[..., None], arguments: Any) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(n),
        "LOCAL_WORLD_SIZE": str(n),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    function(*arguments)
    end_worker()
