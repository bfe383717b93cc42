"""What a cell is, and where its result lies.

A cell's artefacts lie under `cells/task=/budget=/seed=/<hash of its settings>/`; `result.json` is
written last, so its presence means done. Changed settings change the hash: results never mix.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, Strict

from taskeff.config import EarlyStopping, RunConfig, TrainingConfig
from taskeff.config_file import parse_config
from taskeff.errors import ConfigError, DataError
from taskeff.schema import Artefact, Count, Share, Text, Whole, checked
from taskeff.storage import Store, digest

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
    "masters",  # by `cell_hash`, where there are any
}


PUBLISHED_RECIPE = TrainingConfig(
    gradient_checkpointing=True,
    early_stopping=EarlyStopping(every_steps=4, patience=10),
    masters="none",
)
"""The fine-tune of the published families (arXiv 2512.24991, `configs/`), budgets and seeds aside;
what a fine-tune is made by where no family says otherwise."""


@dataclass(frozen=True, order=True)
class Cell:
    """One fine-tune; budget 0 is the zero-shot score, which every seed shares."""

    task: str
    budget: int
    seed: int


class _Trained(Artefact):
    seconds: Annotated[float, Strict(), Field(ge=0)]


class CellResult(Artefact):
    """What `result.json` of a cell holds at least."""

    task: Text
    budget: Count
    seed: Whole
    hash: Text
    score: Share
    label_score: Share | None
    n_test: Annotated[Count, Field(ge=1)]
    evaluation_seconds: Annotated[float, Strict(), Field(ge=0)]
    training: _Trained | None


@dataclass(frozen=True)
class TaskSeed:
    """Cells of one task and seed, those that are still to be measured."""

    task: str
    seed: int
    budgets: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.task} seed {self.seed}"

    @property
    def name(self) -> str:
        """A name fit for files and folders."""
        return f"{self.task}-{self.seed}"

    @property
    def cells(self) -> list[Cell]:
        """The cells themselves."""
        return [Cell(self.task, budget, self.seed) for budget in self.budgets]


def by_task_and_seed(cells: Iterable[Cell]) -> list[TaskSeed]:
    """The cells, those of one task and seed together; budgets rise."""
    budgets: dict[tuple[str, int], list[int]] = {}
    for cell in sorted(cells):
        budgets.setdefault((cell.task, cell.seed), []).append(cell.budget)
    return [TaskSeed(task, seed, tuple(found)) for (task, seed), found in sorted(budgets.items())]


def cell_hash(cell: Cell, config: RunConfig, data_hash: str, identity: Mapping[str, Any]) -> str:
    """A digest of everything that decides the cell's result but the hardware.

    Args:
        identity: the model's, its template hash included.
    """
    training = _training_settings(config.training) if cell.budget else {}
    if training and config.masters == "float32":
        training["masters"] = config.training.masters
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


def recipe_of(config: RunConfig) -> dict[str, Any]:
    """How the run's cells are made and scored, as its calibration's fingerprint keeps it."""
    training = config.training.model_dump(mode="json", exclude=_NOT_HASHED - {"masters"})
    return {"training": training, "test_cap": config.evaluation.test_cap}


def stored_recipe(fingerprint: Mapping[str, Any], where: str) -> tuple[TrainingConfig, int] | None:
    """The recipe in a calibration's fingerprint: how to train, and how many test rows to score on
    at most. None where it keeps none: published coefficients, calibrations of older versions.

    Raises:
        ConfigError: it is no recipe of this version; `where` names the calibration.
    """
    recipe = fingerprint.get("recipe")
    if recipe is None:
        return None
    try:
        training, test_cap = recipe["training"], int(recipe["test_cap"])
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"{where}: fingerprint.recipe is no recipe; calibrate again") from None
    return parse_config(training, f"{where}: fingerprint.recipe", TrainingConfig), test_cap


def _training_settings(training: TrainingConfig) -> dict[str, Any]:
    later = training.model_dump(
        exclude={**_FIRST_FIELDS, **dict.fromkeys(_NOT_HASHED, True)}, exclude_defaults=True
    )
    # Sections whose first fields alone were changed leave an empty shell.
    later = {name: value for name, value in later.items() if value not in ({}, None)}
    return training.model_dump(include=_FIRST_FIELDS) | ({"later": later} if later else {})


def cell_folder(store: Store, cell: Cell, hash_: str) -> Store:
    """Where the cell's artefacts lie."""
    return store.child(*_path(cell, hash_))


def read_results(store: Store, hashes: Mapping[Cell, str]) -> dict[Cell, dict[str, Any]]:
    """The results of those cells that are done, in the order of `hashes`; a request per cell.

    What is no result of its cell counts as missing, with a warning.

    Args:
        hashes: cell -> its hash.
    """

    def check(cell: Cell, value: Any, where: str) -> None:
        check_result(value, cell, hashes[cell], where)

    files = {c: (*_path(c, hash_), "result.json") for c, hash_ in hashes.items()}
    return store.find_json(files, check)


def check_result(value: Any, cell: Cell, hash_: str, where: str) -> None:
    """Refuse what is no result of this cell; raises DataError with file and field."""
    checked(value, CellResult, where)
    for field, wanted in {**vars(cell), "hash": hash_}.items():
        if value[field] != wanted:
            raise DataError(f"{where}: {field}: {value[field]!r:.60}, expected {wanted!r}")


def seconds_of(result: Mapping[str, Any]) -> float:
    """Seconds that a cell's training and evaluation took, the model's loading left out."""
    return result["evaluation_seconds"] + (result["training"] or {}).get("seconds", 0.0)


def _path(cell: Cell, hash_: str) -> tuple[str, ...]:
    return "cells", f"task={cell.task}", f"budget={cell.budget}", f"seed={cell.seed}", hash_


def versions() -> dict[str, str]:
    """Versions of the packages that decide a result, of those installed."""
    names = ("taskeff", "torch", "transformers", "peft", "accelerate", "ray", "numpy")
    found: dict[str, str] = {}
    for name in names:
        # A single machine measures without ray.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
