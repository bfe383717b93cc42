"""Measure the cells of one task and seed: fine-tune at each budget, evaluate, publish."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from taskeff.config import RunConfig
from taskeff.errors import ModelError, StorageError
from taskeff.finetune.cells import Cell, TaskSeed, cell_folder, read_results, versions
from taskeff.finetune.checkpoints import Checkpoints, publish_weights
from taskeff.finetune.evaluate import Evaluation, evaluate, prompts_of
from taskeff.finetune.loop import FineTuner, Training
from taskeff.models import check_cuda, load_model, load_tokenizer
from taskeff.storage import Store
from taskeff.tasks.prompts import Prompter
from taskeff.tasks.task import Task


def measure(
    wanted: TaskSeed,
    task: Task,
    config: RunConfig,
    store: Store,
    hashes: Mapping[Cell, str],
    *,
    on_result: Callable[[dict[str, Any]], None] | None = None,
    device: str | None = None,
    resume: bool = True,
) -> None:
    """Measure cells one after the other, zero-shot first, from one copy of the base weights.

    Every worker of a group calls this; one of them publishes.

    Args:
        hashes: cell -> its hash, of these cells at least.
        on_result: called by every worker with each result once it is published.
        device: "cpu" keeps off the GPU.
        resume: look which cells are published already and skip them; otherwise none is.

    Raises:
        TaskeffError: what the user must mend; every worker of the group raises.
    """
    check_cuda(0 if device == "cpu" else config.cluster.gpus_per_worker)
    # Without a GPU too workers must find each other, which they do where they are told of it.
    workers = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
    cells = sorted(wanted.cells)
    if resume:
        cells = _pending(cells, store, hashes, workers)
    if not cells:
        return
    with _out_of_memory_said(workers):
        shared = _Shared(task, config, wanted.seed, workers)
        try:
            for cell in cells:
                folder = cell_folder(store, cell, hashes[cell])
                training, scored = shared.measure(cell.budget, folder)
                result: dict[str, Any] = {
                    **vars(cell),
                    "hash": hashes[cell],
                    "score": scored.score,
                    "label_score": scored.label_score,
                    "n_test": scored.n_test,
                    "evaluation_seconds": scored.seconds,
                    "training": vars(training) if training else None,
                    "versions": versions(),
                }
                _publish(result, scored.table(), folder, workers)
                if on_result:
                    on_result(result)
        finally:
            shared.close()


class _Shared:
    """What the cells share: one copy of the base weights, the prompts, the test rows.

    On one device adapters are attached only once training starts; workers that share a model
    share it from the beginning, also for the zero-shot score.
    """

    def __init__(self, task: Task, config: RunConfig, seed: int, workers: PartialState):
        self.task, self.config, self.seed, self.workers = task, config, seed, workers
        self._prompter = Prompter(load_tokenizer(config.model), task.spec.description)
        self._test = task.test_subset(config.evaluation.test_cap)
        self._prompts = prompts_of(self._prompter, self._test)
        strategy = config.training.strategy
        alone = workers.num_processes == 1 and strategy in ("auto", "single")
        self._model = load_model(config.model, str(workers.device) if alone else "cpu")
        self._tuner = None if alone else self._make_tuner()

    def measure(self, budget: int, folder: Store) -> tuple[Training | None, Evaluation]:
        """Train at `budget` (0: not at all) and score; `folder` is the cell's."""
        training = self._train(budget, folder) if budget else None
        scored = evaluate(
            self._tuner.model if self._tuner else self._model,
            self._prompter,
            self.task.spec,
            self._test,
            max_tokens=self.config.evaluation.max_tokens_per_pack,
            strategy=self._tuner.strategy if self._tuner else None,
            prompts=self._prompts,
        )
        if training and self._tuner and self.config.training.keep_checkpoints:
            publish_weights(self._tuner.strategy, folder)
        return training, scored

    def close(self) -> None:
        """Let go of what outlives the model."""
        if self._tuner:
            self._tuner.strategy.close()

    def _train(self, budget: int, folder: Store) -> Training:
        self._tuner = self._tuner or self._make_tuner()
        examples, validation = (
            [self._prompter.encode_example(e, end_of_turn=True) for e in rows]
            for rows in (
                self.task.subset(budget, self.seed),
                self.task.validation_subset(budget),
            )
        )
        minutes = self.config.training.checkpoint_minutes
        checkpoints = Checkpoints(folder, minutes, self.workers) if minutes else None
        return self._tuner.train(examples, validation, seed=self.seed, checkpoints=checkpoints)

    def _make_tuner(self) -> FineTuner:
        return FineTuner(self._model, self.config.training, seed=self.seed, workers=self.workers)


def _publish(
    result: dict[str, Any], predictions: pa.Table, folder: Store, workers: PartialState
) -> None:
    """One worker writes; if it cannot, all raise, so that none goes on without the others."""
    error = None
    if workers.is_main_process:
        try:
            folder.write_table(predictions, "predictions.parquet")
            folder.write_json(result, "result.json")
            folder.remove_tree("checkpoint")
        except StorageError as caught:
            error = caught
    (error,) = broadcast_object_list([error])
    if error is not None:
        raise error


def _pending(
    cells: list[Cell], store: Store, hashes: Mapping[Cell, str], workers: PartialState
) -> list[Cell]:
    """Those of `cells` that are not done; one worker looks, so that all agree."""
    found = [cells]
    if workers.is_main_process:
        done = read_results(store, {cell: hashes[cell] for cell in cells})
        found = [[cell for cell in cells if cell not in done]]
    (pending,) = broadcast_object_list(found)
    return pending


@contextmanager
def _out_of_memory_said(workers: PartialState) -> Iterator[None]:
    """Too little memory as an error that says what to lower; of a group's workers one alone may
    run out, and then all must end together, so there it stays what it is."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        words = ("out of memory", "can't allocate memory", "not enough memory")
        lacking = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if workers.num_processes > 1 or not (lacking or any(word in str(error) for word in words)):
            raise
        said = str(error).splitlines()  # a MemoryError may say nothing
        raise ModelError(
            f"out of memory ({said[0] if said else type(error).__name__}); lower "
            "training.max_tokens_per_pack and evaluation.max_tokens_per_pack, shorten the task's "
            "longest rows or give each job more workers"
        ) from error
