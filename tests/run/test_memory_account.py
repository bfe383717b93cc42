"""The memory account against what is counted while the real code runs, and against whole models.

Bytes are counted as tensors come and go (`LiveBytes`): the same on every machine.
"""

import copy

import pytest
import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from taskeff.config import TrainingConfig
from taskeff.coslow.gradients import gradient_gram
from taskeff.coslow.linears import LoRA
from taskeff.finetune.adapters import merged, with_adapters
from taskeff.finetune.loop import FineTuner
from taskeff.finetune.strategy import Sharded
from taskeff.lm.generate import greedy
from taskeff.lm.live import LiveBytes
from taskeff.lm.packing import answer_logits, pack
from taskeff.run import passes
from taskeff.run.memory_account import memory_account
from taskeff.tasks.prompts import TokenizedExample
from tests.finetune.small import small_config

TOKENS, ROWS, ANSWERS = 1024, 8, 4
BELOW, ABOVE = 0.85, 1.05
"""Counted bytes of the account's, at least and at most."""
SHAPE = LlamaConfig(
    vocab_size=1024,
    hidden_size=64,
    intermediate_size=176,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=2048,
    tie_word_embeddings=False,
)

LARGER = LlamaConfig(
    **SHAPE.to_dict() | {"hidden_size": 256, "intermediate_size": 704, "vocab_size": 4096}
)


def config_of(folder, dtype="float32", **training):
    found = small_config(
        folder,
        folder,
        dtype=dtype,
        batch_size=2 * ROWS,
        max_tokens_per_pack=TOKENS,
        max_steps=3,
        **training,
    )
    packs = {"max_tokens_per_pack": TOKENS}
    coslow = found.coslow.model_copy(update={**packs, "max_new_tokens": ANSWERS})
    evaluation = found.evaluation.model_copy(update=packs)
    return found.model_copy(update={"coslow": coslow, "evaluation": evaluation})


def model_of(dtype="float32"):
    torch.manual_seed(0)
    return LlamaForCausalLM(copy.deepcopy(SHAPE)).to(getattr(torch, dtype)).eval()


def examples(n=ROWS):
    """Rows that share 32 tokens, eight of them a full pack."""
    own = (TOKENS - 32) // ROWS - ANSWERS
    return [
        TokenizedExample((1,) * 32 + (2 + i,) * own, (3,) * (ANSWERS + 1), str(i)) for i in range(n)
    ]


VARIANTS = {
    "full": {},
    "full, checkpoints": {"gradient_checkpointing": True},
    "adapters": {"method": "lora"},
    "adapters, checkpoints": {"method": "lora", "gradient_checkpointing": True},
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, "float32") for name in VARIANTS), ("full", "bfloat16"), ("adapters", "bfloat16")],
)
def test_training_and_evaluation_peak_where_the_account_says(name, dtype, tmp_path):
    config = config_of(tmp_path, dtype, **VARIANTS[name])
    found = memory_account(config, SHAPE)
    assert found.complete
    model = model_of(dtype)
    with LiveBytes(model.parameters()) as live:
        tuner = FineTuner(model, config.training, seed=0)
        del model
        tuner.train(examples(2 * ROWS), examples(2), seed=0)
        trained = live.peak
        live.mark()
        with merged(tuner.model), tuner.strategy.computing():
            prompts = [one.prompt_ids for one in examples()]
            labels = ((5, 6), (7, 8, 9))
            greedy(tuner.model, prompts, max_new_tokens=ANSWERS, stop_ids=(0,), choices=labels)
        evaluated = live.peak
    host = found.host.total
    for measured, stage in ((trained, "training"), (evaluated, "evaluation")):
        assert BELOW <= measured / (found.device[stage].total + host) <= ABOVE, stage


def test_confidence_and_gradients_peak_where_the_account_says(tmp_path):
    found = memory_account(config_of(tmp_path), SHAPE)
    model, settings = model_of(), config_of(tmp_path).coslow
    prompts = [one.prompt_ids for one in examples()]
    with LiveBytes(model.parameters()) as live:
        greedy(model, prompts, max_new_tokens=ANSWERS, stop_ids=(0,))
        scored = live.peak
        live.mark()
        gradient_gram(model, examples(settings.n_examples), LoRA(settings.rank))
        swept = live.peak
    assert BELOW <= scored / found.device["confidence"].total <= ABOVE
    # The engine plans with more than it takes: it must never run out.
    assert 0.4 <= swept / found.device["gradients"].total <= 1


class Group:
    """Four workers, of which this is the first."""

    device, num_processes, process_index = torch.device("cpu"), 4, 0


@pytest.fixture
def fake_group(monkeypatch):
    """Collectives that do nothing."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=4, store=FakeStore())
    yield
    dist.destroy_process_group()


def with_method(shape, config):
    """A model as `FineTuner` hands it to a strategy."""
    model = LlamaForCausalLM(copy.deepcopy(shape)).bfloat16()
    if config.training.method == "lora":
        model = with_adapters(model, config.training)
    if config.training.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


@pytest.mark.parametrize("masters", ("float32", "none"))
@pytest.mark.parametrize("name", ("full", "full, checkpoints", "adapters, checkpoints"))
def test_a_shard_peaks_where_the_account_says(name, masters, tmp_path, fake_group, monkeypatch):
    config = config_of(tmp_path, "bfloat16", masters=masters, strategy="fsdp", **VARIANTS[name])
    cluster = config.cluster.model_copy(update={"workers_per_job": 4, "gpus_per_worker": 1})
    config = config.model_copy(update={"cluster": cluster})
    found = memory_account(config, LARGER).device["training"].total
    resize = torch.UntypedStorage.resize_
    strategy = Sharded(config.training, with_method(LARGER, config), Group())
    live = LiveBytes(strategy.module.parameters())

    def resized(storage, size):
        resize(storage, size)
        live.resized(storage)

    monkeypatch.setattr(torch.UntypedStorage, "resize_", resized)
    with live:
        strategy.start(4)
        for _ in range(2):
            batch = pack(examples())
            with strategy.computing():
                logits = answer_logits(strategy.forward_model(), batch).float()
            loss = cross_entropy(logits, batch.targets)
            del logits
            strategy.backward(loss)
            del loss
    assert BELOW <= live.peak / found <= ABOVE


def test_the_whole_model_is_its_blocks_added_up(monkeypatch):
    for training in (TrainingConfig(), TrainingConfig(method="lora", gradient_checkpointing=True)):
        model = passes.Model(SHAPE, "bfloat16", "auto", training)
        added = passes.training_bytes(model, TOKENS, ROWS, ANSWERS, half=True)
        decoded = passes.decoding_bytes(model, TOKENS, 124, ANSWERS, choices=True)
        monkeypatch.setattr(passes, "FEW", SHAPE.num_hidden_layers)
        passes.training_bytes.cache_clear()
        passes.decoding_bytes.cache_clear()
        assert passes.training_bytes(model, TOKENS, ROWS, ANSWERS, half=True) == added
        assert passes.decoding_bytes(model, TOKENS, 124, ANSWERS, choices=True) == decoded
        monkeypatch.undo()
