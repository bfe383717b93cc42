"""The log that the cells of each task and seed leave in the storage."""

from __future__ import annotations

import contextlib
import io
import logging
import time
import traceback
from collections.abc import Iterator

from taskeff.errors import StorageError, redact
from taskeff.storage import Store

FOLDER = "logs"


@contextlib.contextmanager
def published_log(store: Store, name: str) -> Iterator[None]:
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
                store.write_bytes(redact(buffer.getvalue()).encode(), FOLDER, name, file)
