"""A calibration on Ray: cells by Tune and Train, CoS-Lows by Data (`OnRay`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from taskeff.config import RunConfig
from taskeff.distributed.coslow import OnRay
from taskeff.distributed.grid import run_cells
from taskeff.finetune.cells import Cell
from taskeff.run.checks import missing_packages
from taskeff.run.cost import check_placement
from taskeff.run.plan import Plan
from taskeff.run.progress import Progress


class RayExecutor(OnRay):
    """Jobs side by side, as many as the cluster may hold; Ray starts when it is first needed.

    Raises:
        ClusterError: the cluster can never hold one job.
        ConfigError: a setting needs a package that is not installed.
    """

    def __init__(self, config: RunConfig):
        self.lanes = check_placement(config)
        for missing in missing_packages(config):
            raise missing
        super().__init__(cluster=config.cluster)

    def cells(
        self,
        plan: Plan,
        cells: Mapping[Cell, float],
        progress: Progress,
        check: Callable[[], None],
    ) -> None:
        """See `taskeff.run.executor`."""
        self.connect()
        run_cells(plan, cells, self.lanes, progress, check)
