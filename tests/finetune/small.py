"""The cells of a small task and what their measurement publishes."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from taskeff.config import RunConfig
from taskeff.config_file import parse_config
from taskeff.finetune.cells import Cell, TaskSeed, cell_folder, cell_hash
from taskeff.finetune.checkpoints import Checkpoints
from taskeff.finetune.measure import measure
from taskeff.storage import Store
from taskeff.tasks.task import Task, load_spec, load_task
from tests.helpers import run_values

TASK = "sentiment_words"
TRAINING = {
    "budgets": [8, 24],
    "learning_rate": 2e-3,
    "max_steps": 10,
    # Odd, so that workers' shares differ; packs of 64 tokens, so that their number differs too.
    "batch_size": 5,
    "max_tokens_per_pack": 96,
    "early_stopping": {"every_steps": 2, "patience": 3},
}


def small_config(
    model: Path, storage: Path, *, dtype: str = "float32", **training: Any
) -> RunConfig:
    """The configuration of their run."""
    values = run_values(model, storage, training={**TRAINING, **training})
    values["model"]["dtype"] = dtype
    return parse_config({**values, "evaluation": {"test_cap": 21}}, "test")


@lru_cache(maxsize=1)
def the_task() -> Task:
    """Their task."""
    return load_task(load_spec(TASK), 0)


def hashes_of(config: RunConfig) -> dict[Cell, str]:
    """Cell -> its hash, as a plan gives them."""
    data = the_task().data_hash
    cells = [Cell(TASK, budget, 0) for budget in (0, *config.training.budgets)]
    return {cell: cell_hash(cell, config, data, {"model": "t"}) for cell in cells}


def measure_cells(config: RunConfig) -> None:
    """All cells of the task, on the CPU."""
    hashes = hashes_of(config)
    wanted = TaskSeed(TASK, 0, tuple(cell.budget for cell in hashes))
    measure(wanted, the_task(), config, Store(config.storage), hashes, device="cpu")


def folders(config: RunConfig) -> dict[int, Store]:
    """budget -> where the cell is published."""
    store = Store(config.storage)
    return {cell.budget: cell_folder(store, cell, h) for cell, h in hashes_of(config).items()}


def results(config: RunConfig) -> dict[int, dict[str, Any]]:
    """budget -> the published result."""
    return {b: folder.read_json("result.json") for b, folder in folders(config).items()}


class InterruptedCellError(Exception):
    """A worker that ends in the middle of a cell."""


def measure_interrupted(config: RunConfig, saves: int = 2) -> None:
    """Measure, end after so many stored states, measure again."""
    save = Checkpoints.save
    left = saves

    def save_and_end(self: Checkpoints, *arguments: Any) -> None:
        nonlocal left
        save(self, *arguments)
        left -= 1
        if not left:
            raise InterruptedCellError

    Checkpoints.save = save_and_end  # type: ignore[method-assign]
    try:
        measure_cells(config)
    except InterruptedCellError:
        pass
    finally:
        Checkpoints.save = save  # type: ignore[method-assign]
    measure_cells(config)
