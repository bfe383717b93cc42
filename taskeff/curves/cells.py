"""Measure the cells of one row (task, seed): fine-tune at each budget, evaluate, publish.

A cell's artefacts lie under `cells/task=/budget=/seed=/<hash of its settings>/`; `result.json` is
written last, so its presence means done. Changed settings change the hash: results never mix.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from taskeff.config import RunConfig, TrainingConfig
from taskeff.errors import StorageError
from taskeff.store import Store, digest
from taskeff.tasks.task import Task

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
        exclude={**_FIRST_FIELDS, "budgets": True, "seeds": True}, exclude_defaults=True
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

    Args:
        hashes: budget -> the cell's hash. Cells already published are skipped.
        on_result: called with each new result by the process that publishes.
    """
    from taskeff.curves.evaluate import evaluate
    from taskeff.curves.finetune import FineTuner
    from taskeff.models import load_model, load_tokenizer
    from taskeff.tasks.prompts import Prompter

    prompter = Prompter(load_tokenizer(config.model), task.spec.description)
    model = load_model(config.model, device)
    test = task.test_subset(config.evaluation.test_cap)
    max_tokens = config.evaluation.max_tokens_per_pack
    tuner: FineTuner | None = None
    for budget in _pending(row, store, hashes):
        cell = Cell(row.task, budget, row.seed)
        training = None
        if budget:
            if tuner is None:
                tuner = FineTuner(model, config.training, seed=row.seed)
            encode = [
                [prompter.encode_example(e, end_of_turn=True) for e in examples]
                for examples in (task.subset(budget, row.seed), task.validation_subset(budget))
            ]
            training = tuner.train(encode[0], encode[1], seed=row.seed)
        trained = tuner.accelerator.unwrap_model(tuner.model) if tuner else model
        scored = evaluate(trained, prompter, task.spec, test, max_tokens=max_tokens)
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
        if tuner is None or tuner.accelerator.is_main_process:
            folder = cell_folder(store, cell, hashes[budget])
            folder.write_table(scored.table(), "predictions.parquet")
            folder.write_json(result, "result.json")
        if on_result:
            on_result(result)


def versions() -> dict[str, str]:
    """Versions of the packages that decide a result, of those installed."""
    names = ("taskeff", "torch", "transformers", "peft", "accelerate", "ray", "numpy")
    found: dict[str, str] = {}
    for name in names:
        # A single machine measures without ray.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _pending(row: Row, store: Store, hashes: Mapping[int, str]) -> Iterable[int]:
    # Zero-shot first: it is scored before any adapter is attached.
    for budget in sorted(row.budgets):
        if read_result(store, Cell(row.task, budget, row.seed), hashes[budget]) is None:
            yield budget
