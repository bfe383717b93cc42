"""What one start of a run may take before it ends by itself."""

from __future__ import annotations

import time
from collections.abc import Callable

from taskeff.config import RunConfig
from taskeff.errors import TaskeffError
from taskeff.run.placement import coslow_actors


class LimitError(TaskeffError):
    """The run's hours or GPU-hours are up: nothing is wrong, what is measured stays."""


class Limits:
    """`cluster.max_hours` and `max_gpu_hours`, counted from now.

    GPU-hours are those of all GPUs that the run may hold, by cells or by CoS-Low's actors, whether
    they work or wait for room: the cloud bills more only by the idle minutes of its nodes.
    """

    def __init__(self, config: RunConfig, lanes: int, now: Callable[[], float] = time.monotonic):
        cluster, actors = config.cluster, coslow_actors(config)
        self._cluster, self._now, self._started = cluster, now, now()
        self._gpus = max(
            lanes * cluster.workers_per_job * cluster.gpus_per_worker,
            actors.actors[1] * (actors.gpus_per_actor or 0),
        )

    def check(self) -> None:
        """Raises LimitError once a limit is."""
        hours = (self._now() - self._started) / 3600
        taken = {"max_hours": hours, "max_gpu_hours": hours * self._gpus}
        for name, spent in taken.items():
            limit = getattr(self._cluster, name)
            if limit is not None and spent >= limit:
                raise LimitError(
                    f"cluster.{name} {limit:g} is reached: the run ends here, what is measured is "
                    "kept; the same command goes on with as much again"
                )
