"""What does not fit is refused, with a setting that makes it fit; the published runs fit."""

import json
import re
from pathlib import Path

import pytest
from transformers import LlamaConfig

from benchmarks.memory import FAMILIES, account_of, as_json, main, published, table
from taskeff.config import NodeType
from taskeff.errors import ClusterError
from taskeff.models import load_architecture, skeleton
from taskeff.run.memory_account import memory_account
from taskeff.run.placement import demand
from taskeff.run.room import checked
from tests.finetune.small import small_config

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
SHAPE = LlamaConfig(
    vocab_size=32000,
    hidden_size=1024,
    intermediate_size=4096,
    num_hidden_layers=16,
    num_attention_heads=16,
    tie_word_embeddings=False,
)


def on_gpus(folder, gb, *, memory_gb=None, workers=1, **training):
    """A run of `SHAPE` on a machine with GPUs of so many GB."""
    config = small_config(folder, folder, **{"max_tokens_per_pack": 4096, **training})
    config = config.model_copy(
        update={"evaluation": config.evaluation.model_copy(update={"max_tokens_per_pack": 512})}
    )
    kind = NodeType(name="gpu", cpus=64, gpus=8, gpu_memory_gb=gb, memory_gb=memory_gb)
    update = {"node_types": (kind,), "gpus_per_worker": 1, "workers_per_job": workers}
    return config.model_copy(update={"cluster": config.cluster.model_copy(update=update)})


def changed(config, advice):
    """`config` as the refusal says."""
    section, name, value = re.search(r"set (\w+)\.(\w+) to (\w+)", advice).groups()
    given = {"true": True}.get(value) or (int(value) if value.isdigit() else value)
    new = getattr(config, section).model_copy(update={name: given})
    return config.model_copy(update={section: new})


@pytest.mark.parametrize(
    ("gb", "training", "setting"),
    [
        (8, {"batch_size": 32}, "training.gradient_checkpointing to true"),
        (5.6, {"batch_size": 32, "gradient_checkpointing": True}, "training.max_tokens_per_pack"),
        (4, {"gradient_checkpointing": True, "strategy": "fsdp"}, "cluster.workers_per_job to"),
        (4, {"gradient_checkpointing": True, "strategy": "single"}, "training.method to lora"),
    ],
)
def test_the_setting_that_is_named_is_enough(gb, training, setting, tmp_path):
    config = on_gpus(tmp_path, gb, **training)
    with pytest.raises(ClusterError, match=r"cluster: training takes [\d.]+ GB a worker") as error:
        checked(config, SHAPE)
    assert setting in str(error.value)
    checked(changed(config, str(error.value)), SHAPE)


def test_decoding_is_refused_by_its_own_pack(tmp_path):
    config = on_gpus(tmp_path, 40)
    evaluation = config.evaluation.model_copy(update={"max_tokens_per_pack": 1 << 19})
    config = config.model_copy(update={"evaluation": evaluation})
    with pytest.raises(ClusterError, match=r"evaluation takes .* set evaluation\.max_tokens_per"):
        checked(config, SHAPE)


def test_copies_of_weights_count_where_the_machine_says_its_memory(tmp_path):
    config = on_gpus(tmp_path, 80, memory_gb=1)
    with pytest.raises(ClusterError, match=r"host memory takes .* copies of weights"):
        checked(config, SHAPE)
    # Eight workers' copies on one machine: placement counts them.
    need = demand(config, checked(on_gpus(tmp_path, 80, memory_gb=64), SHAPE))
    assert need.memory_gb == pytest.approx(memory_account(config, SHAPE).host.total / 1e9)


def test_a_model_that_looks_into_its_tensors_is_not_refused(tmp_path, monkeypatch):
    def looks(*_, **__):
        raise RuntimeError("data-dependent")

    monkeypatch.setattr("taskeff.run.memory_account.training_bytes", looks)
    found = checked(on_gpus(tmp_path, 80), SHAPE)
    assert not found.complete
    assert found.device["training"].parts["passes"] == 0
    assert found.device["training"].parts["weights"] > 0


def test_zero_shards_what_its_stage_says(tmp_path):
    found = {}
    for stage in (1, 2, 3):
        deepspeed = {"zero_optimization": {"stage": stage, "reduce_bucket_size": 1}}
        config = on_gpus(
            tmp_path,
            80,
            workers=4,
            dtype="bfloat16",
            strategy="deepspeed",
            deepspeed_config=deepspeed,
        )
        found[stage] = memory_account(config, SHAPE).device["training"].parts
    n = sum(p.numel() for p in skeleton(SHAPE).parameters())
    assert [found[k]["weights"] for k in (1, 2, 3)] == [2 * n, 2 * n, 2 * n // 4]
    assert [found[k]["gradients"] for k in (1, 2, 3)] == [2 * n, 2 * n // 4, 2 * n // 4]
    # Masters, two moments and a step's gradients in float32.
    assert {found[k]["moments"] for k in (1, 2, 3)} == {16 * n // 4}


def rows_of(lines):
    return [line for line in lines if line.startswith("| ") and "-instruct" in line]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_published_runs_fit_with_a_tenth_to_spare_and_the_page_says_so(family):
    workers = published(family).cluster.workers_per_job
    found = table((family,), (workers,))
    assert len(rows_of(found)) == 2
    for masters in ("none", "float32"):
        account = account_of(published(family, f"training.masters={masters}"))
        assert max(peak.total for peak in account.device.values()) <= 0.9 * 80e9
    page = PAGE.read_text(encoding="utf-8").splitlines()
    assert set(rows_of(found)) <= set(page)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_page_shows_what_the_command_prints(family):
    page = rows_of(PAGE.read_text(encoding="utf-8").splitlines())
    assert [row for row in page if family in row] == rows_of(table((family,)))


def test_the_command_prints_json(monkeypatch, capsys):
    family = FAMILIES[0]
    shape = load_architecture(published(family).model)
    assert shape.num_hidden_layers == 32
    config = str(PAGE.parents[1] / f"configs/{family}.yaml")
    path = published(family).model.path
    monkeypatch.setattr("sys.argv", ["memory.py", "--json", config, f"model.path={path}"])
    main()
    said = json.loads(capsys.readouterr().out)
    assert said == as_json(published(family), account_of(published(family)))
    assert set(said["peak_gib"]) == {"training", "evaluation", "confidence", "gradients", "host"}
