"""What a cell's hash hears of, and what it does not."""

import pytest

from taskeff.config import LoRAConfig, RunConfig, TrainingConfig
from taskeff.errors import ClusterError
from taskeff.finetune.cells import Cell, TaskSeed, cell_hash
from taskeff.finetune.measure import measure
from taskeff.storage import Store
from tests.finetune.small import TASK, hashes_of, small_config, the_task

IDENTITY = {"model": "m", "revision": None, "chat_template": "t"}


class LaterLoRA(LoRAConfig):
    """A section that gained a field."""

    dropout: float = 0.0


class LaterTraining(TrainingConfig):
    """The training section after a release that added two fields."""

    smoothing: float = 0.0
    lora: LaterLoRA = LaterLoRA()


def hashed(training: TrainingConfig, budget: int = 8, dtype: str = "float32") -> str:
    """The hash of a cell trained so."""
    config = RunConfig.model_validate(
        {
            "name": "n",
            "storage": "s",
            "model": {"path": "p", "name": "m", "dtype": dtype},
            "tasks": {"calibration": ["a", "b"]},
        }
    ).model_copy(update={"training": training})
    return cell_hash(Cell("a", budget, 0), config, "data", IDENTITY)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "799aa396000c"),
        ({"method": "lora", "lora": {"rank": 4}}, "fc77f73e37f7"),
        ({"epochs": 3, "early_stopping": {"patience": 2}}, "6689a7dfe1d1"),
    ],
)
def test_hashes_of_finished_cells_stay(settings, expected):
    """Digests of the first release: another one here means every finished cell is lost."""
    first = {"masters": "none", **settings}  # there were none
    assert hashed(TrainingConfig(**first), dtype="bfloat16") == expected
    assert hashed(LaterTraining(**first), dtype="bfloat16") == expected


@pytest.mark.parametrize(
    ("dtype", "method", "changes"),
    [("bfloat16", "full", True), ("bfloat16", "lora", False), ("float32", "full", False)],
)
def test_masters_count_where_there_are_any(dtype, method, changes):
    kinds = ("float32", "none")
    hashes = {hashed(TrainingConfig(method=method, masters=m), dtype=dtype) for m in kinds}
    assert len(hashes) == 1 + changes


def test_a_field_added_later_counts_once_it_is_used():
    plain = hashed(TrainingConfig())
    other = hashed(LaterTraining(smoothing=0.1))
    nested = hashed(LaterTraining(lora=LaterLoRA(dropout=0.1)))
    assert len({plain, other, nested}) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 1e-4},
        {"lora": {"rank": 4}},
        {"early_stopping": {}},
        {"early_stopping": {"patience": 2}},
        {"epochs": 2},
        {"batch_size": 8},
    ],
)
def test_every_setting_counts(change):
    assert hashed(TrainingConfig(**change)) != hashed(TrainingConfig())


def test_the_grid_and_a_zero_shot_cell_do_not():
    assert hashed(TrainingConfig(budgets=(8,), seeds=(1,))) == hashed(TrainingConfig())
    assert hashed(TrainingConfig(epochs=2), 0) == hashed(TrainingConfig(), 0)


def test_cells_meant_for_gpus_are_not_measured_on_the_cpu(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    config = small_config(tiny_model, tmp_path)
    cluster = config.cluster.model_copy(update={"gpus_per_worker": 1.0})
    config = config.model_copy(update={"cluster": cluster})
    hashes = hashes_of(config)
    with pytest.raises(ClusterError, match="finds none"):
        measure(TaskSeed(TASK, 0, (0,)), the_task(), config, Store(config.storage), hashes)
