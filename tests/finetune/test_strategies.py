"""Two workers give what one gives: the same losses, the same answers, the same weights."""

import json
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from taskeff.config import RunConfig, TrainingConfig
from taskeff.errors import DataError, StorageError, TaskeffError
from taskeff.finetune import evaluate
from taskeff.finetune.strategies import choose
from taskeff.finetune.workers import deal
from taskeff.storage import Store
from tests.finetune.group import run_group
from tests.finetune.small import folders, measure_cells, measure_interrupted, results, small_config

ROOT = Path(__file__).parents[2]
STRATEGIES = {
    "ddp": {"strategy": "ddp"},
    "fsdp": {"strategy": "fsdp"},
    "zero2": {
        "strategy": "deepspeed",
        "deepspeed_config": str(ROOT / "configs/deepspeed/zero2.json"),
    },
    "zero3": {
        "strategy": "deepspeed",
        "deepspeed_config": str(ROOT / "configs/deepspeed/zero3.json"),
    },
}
METHODS = ("full", "lora")
KEPT = {"keep_checkpoints": True}
STORED = {"checkpoint_minutes": 1e-9}  # after every step

SHORT = {"budgets": [8], "max_steps": 4, **KEPT}
# (settings, how far losses may be apart): passes in bfloat16 round otherwise when cut otherwise.
# Adam makes a whole step of a rounded sign, so that steps are small where passes round.
SMALL = {"learning_rate": 1e-4}
PRECISIONS = {
    "checkpointed": ({"gradient_checkpointing": True}, 5e-5),
    "bfloat16": ({"gradient_checkpointing": True, "dtype": "bfloat16", **SMALL}, 0.02),
    "no masters": ({"masters": "none", "dtype": "bfloat16", **SMALL}, 0.02),
    "mixed": ({"mixed_precision": "bf16", **SMALL}, 0.02),
}

torch_workers = [name for name in STRATEGIES if name in ("ddp", "fsdp")]
deepspeed_workers = [name for name in STRATEGIES if name.startswith("zero")]


def config_of(model: Path, storage: Path, name: str, method: str, **more) -> RunConfig:
    return small_config(model, storage / name / method, method=method, **STRATEGIES[name], **more)


def fail_together(model: Path, storage: Path) -> None:
    """One worker's trouble, while answering and while publishing; what each of them raises."""
    rank = int(os.environ["RANK"])
    reasons = []
    greedy, write_json = evaluate.greedy, Store.write_json

    def break_down(*arguments, **more):
        greedy(*arguments, **more)
        raise DataError("row 3 is broken")

    def fill_up(*arguments, **more):
        raise StorageError("the storage is full")

    for place, name, broken in ((evaluate, "greedy", break_down), (Store, "write_json", fill_up)):
        config = config_of(model, storage / name, "fsdp", "lora")
        # Only the first worker writes.
        patched = rank == (1 if name == "greedy" else 0)
        setattr(place, name, broken if patched else getattr(place, name))
        try:
            measure_cells(config)
        except TaskeffError as error:
            reasons.append(f"{type(error).__name__}: {error}")
        finally:
            evaluate.greedy, Store.write_json = greedy, write_json
    (storage / f"reasons-{rank}.json").write_text(json.dumps(reasons))


def measure_all(model: Path, storage: Path, names: list[str]) -> None:
    """What each worker does: every strategy and method, then one of each in two pieces."""
    for name in names:
        for method in METHODS:
            measure_cells(config_of(model, storage, name, method, **KEPT))
        measure_interrupted(config_of(model, storage / "again", name, "lora", **STORED))
    for name in {"fsdp", "zero3"} & set(names):
        for kind, (settings, _) in PRECISIONS.items():
            if name == "zero3" and kind == "no masters":
                continue  # DeepSpeed has them always
            measure_cells(config_of(model, storage / kind, name, "full", **SHORT, **settings))
    if "fsdp" in names:
        fail_together(model, storage)


@pytest.fixture(scope="module")
def single(tiny_model, tmp_path_factory) -> dict[str, RunConfig]:
    """method -> a measured row on one device."""
    storage = tmp_path_factory.mktemp("single")
    torch.set_num_threads(1)
    configs = {m: small_config(tiny_model, storage / m, method=m, **KEPT) for m in METHODS}
    for config in configs.values():
        measure_cells(config)
    return configs


@pytest.fixture(scope="module")
def with_torch(tiny_model, tmp_path_factory) -> Path:
    storage = tmp_path_factory.mktemp("torch")
    run_group(2, measure_all, tiny_model, storage, torch_workers)
    return storage


@pytest.fixture(scope="module")
def with_deepspeed(tiny_model, tmp_path_factory) -> Path:
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: taskeff[deepspeed]")
    storage = tmp_path_factory.mktemp("deepspeed")
    run_group(2, measure_all, tiny_model, storage, deepspeed_workers)
    return storage


def kept_weights(config: RunConfig, budget: int) -> dict[str, torch.Tensor]:
    from safetensors.torch import load

    folder = folders(config)[budget].child("weights")
    found: dict[str, torch.Tensor] = {}
    for name in folder.names():
        if name.endswith(".safetensors"):
            found |= load(folder.read_bytes(name))
    return found


def check_same(ours: RunConfig, theirs: RunConfig) -> None:
    """Losses within 5e-5 after ten steps, kept weights within 1e-4 of their size, equal answers."""
    for budget, expected in results(theirs).items():
        found = results(ours)[budget]
        tables = [folders(c)[budget].read_table("predictions.parquet") for c in (ours, theirs)]
        assert tables[0].equals(tables[1])
        assert (found["score"], found["n_test"]) == (expected["score"], expected["n_test"])
        if not budget:
            continue
        assert found["training"]["workers"] == 2
        assert found["training"]["losses"] == pytest.approx(
            expected["training"]["losses"], rel=5e-5
        )
        steps = expected["training"]["validation_losses"]
        assert found["training"]["validation_losses"] == pytest.approx(steps, rel=5e-5)
        assert found["training"]["best_step"] == expected["training"]["best_step"]
        weights = kept_weights(theirs, budget)
        kept = kept_weights(ours, budget)
        assert set(kept) == set(weights)
        for name, weight in weights.items():
            assert (kept[name] - weight).norm() <= 1e-4 * weight.norm(), name


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", torch_workers)
def test_two_workers_give_what_one_gives(single, with_torch, tiny_model, name, method):
    check_same(config_of(tiny_model, with_torch, name, method, **KEPT), single[method])


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", deepspeed_workers)
def test_deepspeed_gives_what_one_worker_gives(single, with_deepspeed, tiny_model, name, method):
    check_same(config_of(tiny_model, with_deepspeed, name, method, **KEPT), single[method])


def check_resumed(storage: Path, model: Path, name: str) -> None:
    whole = results(config_of(model, storage, name, "lora", **KEPT))
    config = config_of(model, storage / "again", name, "lora", **STORED)
    again = results(config)
    assert again[8]["training"]["resumed_at"] == 2
    for budget in (8, 24):
        for key in ("losses", "validation_losses", "best_step", "tokens"):
            assert again[budget]["training"][key] == whole[budget]["training"][key]
        assert again[budget]["score"] == whole[budget]["score"]
        assert not folders(config)[budget].exists("checkpoint")


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("name", torch_workers)
def test_workers_go_on_from_a_stored_state(with_torch, tiny_model, name):
    check_resumed(with_torch, tiny_model, name)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("name", deepspeed_workers)
def test_deepspeed_goes_on_from_a_stored_state(with_deepspeed, tiny_model, name):
    check_resumed(with_deepspeed, tiny_model, name)


def moved(config: RunConfig, model: Path) -> torch.Tensor:
    """How far training took the weights, in one vector."""
    from safetensors.torch import load_file

    start = load_file(model / "model.safetensors")
    kept = kept_weights(config, 8)
    return torch.cat([(kept[n].float() - start[n].float()).flatten() for n in sorted(kept)])


def check_precision(storage: Path, alone: Path, model: Path, name: str, kind: str) -> None:
    settings, apart = PRECISIONS[kind]
    single = small_config(model, alone, **SHORT, **settings)
    measure_cells(single)
    sharded = config_of(model, storage / kind, name, "full", **SHORT, **settings)
    losses = [results(config)[8]["training"]["losses"] for config in (sharded, single)]
    assert losses[0] == pytest.approx(losses[1], rel=apart)
    way, expected = (moved(config, model) for config in (sharded, single))
    assert way @ expected > 0.99 * expected @ expected


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("kind", PRECISIONS)
def test_sharded_passes_in_every_precision(with_torch, tiny_model, tmp_path, kind):
    check_precision(with_torch, tmp_path, tiny_model, "fsdp", kind)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("kind", [kind for kind in PRECISIONS if kind != "no masters"])
def test_deepspeed_passes_in_every_precision(with_deepspeed, tiny_model, tmp_path, kind):
    check_precision(with_deepspeed, tmp_path, tiny_model, "zero3", kind)


@pytest.mark.slow
@pytest.mark.cluster
def test_workers_fail_together(with_torch):
    for rank in range(2):
        reasons = json.loads((with_torch / f"reasons-{rank}.json").read_text())
        assert reasons == ["DataError: row 3 is broken", "StorageError: the storage is full"]


@pytest.mark.slow
@pytest.mark.cluster
def test_kept_weights_load_as_a_model(single, with_torch, tiny_model):
    config = config_of(tiny_model, with_torch, "fsdp", "full", **KEPT)
    model = AutoModelForCausalLM.from_pretrained(folders(config)[24].path("weights"))
    assert type(model).__name__ == "LlamaForCausalLM"
    adapter = json.loads(folders(single["lora"])[24].read_bytes("weights", "adapter_config.json"))
    assert adapter["r"] == 16


def test_auto_is_single_on_one_worker_and_shards_what_is_large():
    with torch.device("meta"):
        small, large = torch.nn.Linear(8, 8), torch.nn.Linear(2**15, 2**14 + 1)
    config = TrainingConfig()
    assert choose(config, large, 1) == "single"
    assert choose(config, small, 2) == "ddp"
    assert choose(config, large, 2) == "fsdp"
    for parameter in large.parameters():
        parameter.requires_grad_(False)
    assert choose(config, large, 2) == "ddp"


def test_work_is_dealt_out_whole_and_evenly():
    lengths = [9, 1, 5, 5, 7, 2, 8]
    dealt = deal(lengths, 3)
    assert sorted(i for members in dealt for i in members) == list(range(7))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    assert deal(lengths, 1) == [list(range(7))]
    assert deal([3], 2) == [[0], []]
