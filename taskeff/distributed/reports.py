"""What a worker group tells the driver, and the log each row leaves in the storage."""

from __future__ import annotations

import contextlib
import io
import logging
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from ray.tune.integration.ray_train import TuneReportCallback

from taskeff.errors import StorageError
from taskeff.storage import Store

FOLDER = "logs"


class JobReports(TuneReportCallback):
    """Carries workers' reports to the Tune trial, and their deaths too."""

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        self._training_actor_item_queue.put(
            {"death": reason(next(iter(worker_exceptions.values())))}
        )


def reason(error: BaseException) -> str:
    """The one line of an error, Ray's included, that says what happened."""
    workers = getattr(error, "worker_failures", None)
    if workers:
        return reason(next(iter(workers.values())))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@contextlib.contextmanager
def row_log(store: Store, name: str) -> Iterator[None]:
    """Publish what the block logs, and the trace it may end with, as `logs/{name}/{time}.log`.

    Nothing is published when nothing was logged; a full storage does not hide the block's error.
    """
    buffer = io.StringIO()
    handler = logging.StreamHandler(buffer)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    ours = logging.getLogger("taskeff")
    level = ours.level
    root.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    except BaseException:
        buffer.write(traceback.format_exc())
        raise
    finally:
        root.removeHandler(handler)
        ours.setLevel(level)
        if buffer.tell():
            file = time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + ".log"
            with contextlib.suppress(StorageError):
                store.write_bytes(buffer.getvalue().encode(), FOLDER, name, file)
