"""One connection to Ray per run: a local cluster on a laptop, or the cluster the job runs in."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

# One thread per worker; spinning OpenMP threads are ten times slower when all cores are busy.
_WORKER_ENV = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
}


@contextmanager
def ray_session() -> Iterator[None]:
    """Use the Ray that is running (`RAY_ADDRESS`, or this process's own); else start a local one.

    A local cluster listens on loopback only and ends with the session.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    address = os.environ.get("RAY_ADDRESS")
    if address:
        ray.init(address=address, runtime_env={"env_vars": _WORKER_ENV}, log_to_driver=False)
    else:
        ray.init(
            # Trials only wait, but ask for a sliver of a CPU: one more than there are cores, so
            # that as many one-core workers as cores fit beside them.
            num_cpus=(os.cpu_count() or 1) + 1,
            include_dashboard=False,
            runtime_env={"env_vars": _WORKER_ENV},
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    try:
        yield
    finally:
        ray.shutdown()


def return_memory() -> None:
    """Give the system back what this process no longer uses.

    Buffers of ever new shapes leave glibc's heap full of holes: a worker that has measured a few
    rows was seen to hold 1.1 GB of nothing.
    """
    gc.collect()
    # Other C libraries have no such call and no such need.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
