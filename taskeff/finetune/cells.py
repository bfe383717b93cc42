"""Measure the cells of one row (task, seed): fine-tune at each budget, evaluate, publish.

A cell's artefacts lie under `cells/task=/budget=/seed=/<hash of its settings>/`; `result.json` is
written last, so its presence means done. Changed settings change the hash: results never mix.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from taskeff.config import RunConfig, TrainingConfig
from taskeff.errors import StorageError
from taskeff.storage import Store, digest
from taskeff.tasks.task import Task

if TYPE_CHECKING:
    import pyarrow as pa
    from accelerate import PartialState

log = logging.getLogger(__name__)

SCHEMA = 1  # raised when what a cell measures changes

# Always hashed. A field that TrainingConfig gains later is hashed only where it differs from its
# default: the default is what cells measured before it existed did, and those stay valid.
_FIRST_FIELDS: Any = {
    "method": True,
    "lora": {"rank", "alpha"},
    "learning_rate": True,
    "warmup_ratio": True,
    "weight_decay": True,
    "max_grad_norm": True,
    "epochs": True,
    "max_steps": True,
    "batch_size": True,
    "scale_batch": True,
    "max_tokens_per_pack": True,
    "gradient_checkpointing": True,
    "early_stopping": {"every_steps", "patience"},
}

# Which cells there are is no setting of theirs; how workers share a model, and what is kept of
# it, changes no result.
_NOT_HASHED = {
    "budgets",
    "seeds",
    "strategy",
    "deepspeed_config",
    "keep_checkpoints",
    "checkpoint_minutes",
}


@dataclass(frozen=True, order=True)
class Cell:
    """One fine-tune; budget 0 is the zero-shot score, which every seed shares."""

    task: str
    budget: int
    seed: int


@dataclass(frozen=True)
class Row:
    """The cells of one (task, seed) that are still to be measured."""

    task: str
    seed: int
    budgets: tuple[int, ...]


def cell_hash(cell: Cell, config: RunConfig, data_hash: str, identity: Mapping[str, Any]) -> str:
    """A digest of everything that decides the cell's result but the hardware.

    Args:
        identity: the model's, its template hash included.
    """
    training = _training_settings(config.training) if cell.budget else {}
    return digest(
        {
            "schema": SCHEMA,
            "cell": vars(cell),
            "data": data_hash,
            "model": dict(identity),
            "dtype": config.model.dtype,
            "training": training,
            "test_cap": config.evaluation.test_cap,
            "tasks_seed": config.tasks.seed,
        }
    )


def _training_settings(training: TrainingConfig) -> dict[str, Any]:
    later = training.model_dump(
        exclude={**_FIRST_FIELDS, **dict.fromkeys(_NOT_HASHED, True)}, exclude_defaults=True
    )
    # Sections whose first fields alone were changed leave an empty shell.
    later = {name: value for name, value in later.items() if value not in ({}, None)}
    return training.model_dump(include=_FIRST_FIELDS) | ({"later": later} if later else {})


def cell_folder(store: Store, cell: Cell, hash_: str) -> Store:
    """Where the cell's artefacts lie."""
    return store.child(
        "cells", f"task={cell.task}", f"budget={cell.budget}", f"seed={cell.seed}", hash_
    )


def read_result(store: Store, cell: Cell, hash_: str) -> dict[str, Any] | None:
    """The cell's result, or None if it is not done (a truncated file counts as not done)."""
    folder = cell_folder(store, cell, hash_)
    if not folder.exists("result.json"):
        return None
    try:
        return folder.read_json("result.json")
    except StorageError as error:
        log.warning("%s; the cell is measured again", error)
        return None


def measure(
    row: Row,
    task: Task,
    config: RunConfig,
    store: Store,
    hashes: Mapping[int, str],
    *,
    on_result: Callable[[dict[str, Any]], None] | None = None,
    device: str | None = None,
) -> None:
    """Measure the row's cells one after the other from one copy of the base weights.

    Every worker of the row calls this; one of them publishes.

    Args:
        hashes: budget -> the cell's hash. Cells already published are skipped.
        on_result: called by every worker with each result once it is published.
        device: "cpu" keeps off the GPU.

    Raises:
        TaskeffError: what the user must mend; every worker of the row raises.
    """
    import torch
    from accelerate import PartialState

    from taskeff.finetune.bench import Bench
    from taskeff.models import check_cuda

    check_cuda(0 if device == "cpu" else config.cluster.gpus_per_worker)

    # Without a GPU too workers must find each other, which they do where they are told of it.
    workers = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
    pending = _pending(row, store, hashes, workers)
    if not pending:
        return
    bench = Bench(task, config, row.seed, workers)
    try:
        for budget in pending:
            cell = Cell(row.task, budget, row.seed)
            folder = cell_folder(store, cell, hashes[budget])
            training, scored = bench.measure(budget, folder)
            result: dict[str, Any] = {
                **vars(cell),
                "hash": hashes[budget],
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
        bench.close()


def _publish(
    result: dict[str, Any], predictions: pa.Table, folder: Store, workers: PartialState
) -> None:
    """One worker writes; if it cannot, all raise, so that none goes on without the others."""
    from accelerate.utils import broadcast_object_list

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


def versions() -> dict[str, str]:
    """Versions of the packages that decide a result, of those installed."""
    names = ("taskeff", "torch", "transformers", "peft", "accelerate", "ray", "numpy")
    found: dict[str, str] = {}
    for name in names:
        # A single machine measures without ray.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _pending(row: Row, store: Store, hashes: Mapping[int, str], workers: PartialState) -> list[int]:
    """Budgets still to be measured, zero-shot first; one worker looks, so that all agree."""
    from accelerate.utils import broadcast_object_list

    found: list[list[int]] = [[]]
    if workers.is_main_process:
        cells = [Cell(row.task, budget, row.seed) for budget in sorted(row.budgets)]
        found = [[c.budget for c in cells if read_result(store, c, hashes[c.budget]) is None]]
    (pending,) = broadcast_object_list(found)
    return pending
