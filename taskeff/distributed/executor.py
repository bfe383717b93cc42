"""Measuring on Ray: cells by Tune and Train, CoS-Lows by Data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack

from taskeff.config import RunConfig
from taskeff.distributed.coslow import measure
from taskeff.distributed.grid import run_cells
from taskeff.distributed.session import ray_session
from taskeff.distributed.tracking import check_tracking
from taskeff.finetune.cells import Cell
from taskeff.run.cost import check_placement
from taskeff.run.data_sets import data_sets, follow
from taskeff.run.plan import Plan
from taskeff.run.progress import Progress


class RayExecutor:
    """Jobs side by side, as many as the cluster may hold; Ray starts when it is first needed.

    Raises:
        ClusterError: the cluster can never hold one job.
        ConfigError: a tracker is named whose package is not installed.
    """

    def __init__(self, config: RunConfig):
        self.lanes = check_placement(config)
        check_tracking(config)
        self._cluster = config.cluster
        self._open = ExitStack()
        self._started = False

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def cells(
        self,
        plan: Plan,
        cells: Mapping[Cell, float],
        progress: Progress,
        check: Callable[[], None],
    ) -> None:
        """See `taskeff.run.executor`."""
        self._start()
        run_cells(plan, cells, self.lanes, progress, check)

    def coslow(
        self,
        plan: Plan,
        tasks: Mapping[str, float],
        progress: Progress,
        check: Callable[[], None],
    ) -> None:
        """See `taskeff.run.executor`."""
        self._start()
        config = plan.config
        made = data_sets(plan, tasks)
        events = measure(made, config.model, config.coslow, config.actors)
        follow(plan, events, progress, check)

    def _start(self) -> None:
        if not self._started:
            self._open.enter_context(ray_session(self._cluster))
            self._started = True
