"""Measuring in this process, without Ray: for one machine, a laptop or a box with one GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

from taskeff.config import RunConfig
from taskeff.coslow.measure import measure_signal
from taskeff.errors import TaskeffError
from taskeff.finetune.cells import Cell, TaskSeed, seconds_of
from taskeff.finetune.measure import measure
from taskeff.memory import return_memory
from taskeff.models import load_model, load_tokenizer
from taskeff.run.cost import cheap_first
from taskeff.run.logs import published_log
from taskeff.run.plan import Plan
from taskeff.run.progress import Progress
from taskeff.tasks.prompts import Prompter


class InlineExecutor:
    """One thing after the other, seed by seed and cheap cells first (see `cheap_first`)."""

    lanes = 1

    def __init__(self, config: RunConfig):
        self._threads = config.cluster.threads_per_worker

    def __enter__(self) -> InlineExecutor:
        torch.set_num_threads(self._threads)
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def cells(
        self,
        plan: Plan,
        cells: Mapping[Cell, float],
        progress: Progress,
        check: Callable[[], None],
    ) -> None:
        """See `taskeff.run.executor`."""
        for cell in cheap_first(plan, cells):
            one = TaskSeed(cell.task, cell.seed, (cell.budget,))
            if str(one) in progress.failures:
                continue  # what the user must mend fails again at every budget
            check()
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

    def coslow(
        self,
        plan: Plan,
        tasks: Mapping[str, float],
        progress: Progress,
        check: Callable[[], None],
    ) -> None:
        """See `taskeff.run.executor`."""
        config = plan.config
        model, tokenizer = load_model(config.model), load_tokenizer(config.model)
        for name in sorted(tasks, key=lambda name: (tasks[name], name)):
            check()
            task, started = plan.tasks[name], time.monotonic()
            prompter = Prompter(tokenizer, task.spec.description)
            try:
                result = measure_signal(model, task, prompter, config, plan.folder(name))
            except TaskeffError as error:
                progress.failed(name, str(error))
            else:
                progress.coslow(result, time.monotonic() - started)
