"""What a run asks of whatever measures its cells and CoS-Lows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from taskeff.finetune.cells import Cell
from taskeff.run.plan import Plan
from taskeff.run.progress import Progress


class Executor(AbstractContextManager[Any], Protocol):
    """Measures for one run, between entering and leaving `with`.

    Made from a `RunConfig`; the making raises TaskeffError if the executor could never measure
    such a run. `taskeff.run.inline` has the one without Ray, `taskeff.distributed.executor` the
    one on Ray.

    Attributes:
        lanes: how many cells are measured at once.
    """

    lanes: int

    def cells(
        self,
        plan: Plan,
        cells: Mapping[Cell, float],
        progress: Progress,
        check: Callable[[], None],
    ) -> None:
        """Measure and publish cells that are not published yet.

        What fails goes into `progress.failures` by task and seed, and leaves the others alone.

        Args:
            cells: cell -> its expected duration in seconds.
            check: to be called now and then; what it raises ends the run.
        """
        ...

    def coslow(
        self,
        plan: Plan,
        tasks: Mapping[str, float],
        progress: Progress,
        check: Callable[[], None],
    ) -> None:
        """Measure and publish the CoS-Lows of tasks that have none yet; else as `cells`."""
        ...
