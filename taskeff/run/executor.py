"""What a calibration and a ranking ask of whatever measures for them.

`taskeff.run.inline` has those without Ray, `taskeff.distributed` those on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from taskeff.config import CosLowConfig, ModelConfig, ScoringConfig
from taskeff.coslow.data_set import DataSet
from taskeff.coslow.pipeline import Outcome, Scored
from taskeff.finetune.cells import Cell
from taskeff.run.plan import Plan
from taskeff.run.progress import Progress


class Measures(AbstractContextManager[Any], Protocol):
    """Takes data sets to their CoS-Low, between entering and leaving `with`."""

    def data_sets(
        self,
        data_sets: Sequence[DataSet],
        model: ModelConfig,
        settings: CosLowConfig,
        scoring: ScoringConfig,
    ) -> Iterator[Scored | Outcome]:
        """Take every data set as far as it goes; the last thing given of each is its outcome."""
        ...

    def mapped(
        self, function: Callable[..., Any], parts: Sequence[Sequence[Any]], **shared: Any
    ) -> list[Any]:
        """`function(part, **shared)` for every part, in order."""
        ...


class Executor(Measures, Protocol):
    """Measures a calibration's cells too, `lanes` at once.

    Made from a `RunConfig`; the making raises TaskeffError if it could never measure such a run.
    """

    lanes: int

    def cells(self, plan: Plan, cells: Mapping[Cell, float], progress: Progress) -> None:
        """Measure and publish cells that are not published yet; `progress.check` is called now
        and then.

        What fails goes into `progress.failures` by task and seed, and leaves the others alone.

        Args:
            cells: cell -> its expected duration in seconds.
        """
        ...
