"""Measuring in this process, without Ray: for one machine, a laptop or a box with one GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from taskeff.config import CosLowConfig, ModelConfig, RunConfig, ScoringConfig
from taskeff.coslow.data_set import DataSet
from taskeff.coslow.engines import EngineFactory, engine_of, in_this_process
from taskeff.coslow.pipeline import Outcome, Scored, Worker
from taskeff.errors import TaskeffError
from taskeff.finetune.cells import Cell, TaskSeed, seconds_of
from taskeff.finetune.measure import measure
from taskeff.memory import return_memory
from taskeff.models import load_tokenizer
from taskeff.run.cost import cheap_first
from taskeff.run.logs import published_log
from taskeff.run.plan import Plan
from taskeff.run.progress import Progress


class InProcess(AbstractContextManager["InProcess"]):
    """Takes a ranking's data sets as far as they go, one after the other.

    Examples:
        >>> ranking = {"manifest": "manifest.yaml", "model": "model", "family": "family.json"}
        >>> rows = taskeff.rank({**ranking, "out": "here"}, taskeff.InProcess())
        CoS-Low: 1 of 1 data sets to measure
        ...
    """

    def __init__(self, engine: EngineFactory | None = None):
        self._engine = engine

    def __exit__(self, *_: object) -> None:
        return None

    def data_sets(
        self,
        data_sets: Sequence[DataSet],
        model: ModelConfig,
        settings: CosLowConfig,
        scoring: ScoringConfig,
    ) -> Iterator[Scored | Outcome]:
        """See `taskeff.run.executor`."""
        scoring = in_this_process(scoring)
        engine = self._engine or engine_of(scoring)
        worker = Worker(engine(model, settings, scoring), load_tokenizer(model))
        for data in data_sets:
            yield from worker.run(data)
            return_memory()

    def mapped(
        self, function: Callable[..., Any], parts: Sequence[Sequence[Any]], **shared: Any
    ) -> list[Any]:
        """`function(part, **shared)` for every part, in order."""
        return [function(part, **shared) for part in parts]


class InlineExecutor(InProcess):
    """One thing after the other, seed by seed and cheap cells first (see `cheap_first`).

    Examples:
        >>> config = taskeff.pilot_config("model", "name_gender", [8], "inline")
        >>> taskeff.pilot(config, executor=taskeff.InlineExecutor, only_plan=True)
        recipe: the published: all weights, ...
    """

    lanes = 1

    def __init__(self, config: RunConfig):
        super().__init__()
        self._threads = config.cluster.threads_per_worker

    def __enter__(self) -> InlineExecutor:
        torch.set_num_threads(self._threads)
        return self

    def cells(self, plan: Plan, cells: Mapping[Cell, float], progress: Progress) -> None:
        """See `taskeff.run.executor`."""
        for cell in cheap_first(plan, cells):
            one = TaskSeed(cell.task, cell.seed, (cell.budget,))
            if str(one) in progress.failures:
                continue  # what the user must mend fails again at every budget
            progress.check()
            try:
                with published_log(plan.store, one.name):
                    measure(
                        one,
                        plan.tasks[cell.task],
                        plan.config,
                        plan.store,
                        plan.cells,
                        on_result=lambda result, cell=cell: progress.cell(
                            cell, result["score"], seconds_of(result)
                        ),
                        resume=False,
                    )
            except TaskeffError as error:
                progress.failed(str(one), str(error))
            # Adapters hold their model in cycles: without this the next cell's stands beside it.
            return_memory()
