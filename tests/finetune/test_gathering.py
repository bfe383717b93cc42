"""A sharded model that is scored gathers its blocks once, and is trained afterwards as before."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from taskeff.config import TrainingConfig
from taskeff.finetune import strategy
from taskeff.finetune.loop import FineTuner
from taskeff.lm.generate import greedy
from taskeff.tasks.prompts import TokenizedExample
from tests.finetune.group import run_group

BLOCKS, TOKENS = 4, 12


class Gathers(TorchDispatchMode):
    """Counts all-gathers."""

    n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n += "allgather" in func._schema.name
        return func(*args, **(kwargs or {}))


def score_and_train(folder: Path) -> None:
    """What each worker does: where there is room for the whole model, and where there is none."""
    rng = random.Random(0)
    prompts = [tuple(rng.randrange(64) for _ in range(10)) for _ in range(8)]
    rows = [TokenizedExample(prompt, (1, 2), str(i)) for i, prompt in enumerate(prompts)]
    found = []
    for room in (1 << 40, 0):
        strategy.free_bytes = lambda device, room=room: room
        torch.manual_seed(0)
        shape = LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=BLOCKS,
            num_attention_heads=2,
        )
        config = TrainingConfig(strategy="fsdp", max_steps=2, batch_size=4)
        workers = PartialState(cpu=True)
        tuner = FineTuner(LlamaForCausalLM(shape), config, seed=0, workers=workers)
        tuner.train(rows, seed=0)
        shares = [weight.shape for weight in tuner.strategy.weights()]
        with Gathers() as gathers, tuner.strategy.in_step():
            answers = greedy(tuner.model, prompts, max_new_tokens=TOKENS, stop_ids=())
        assert [weight.shape for weight in tuner.strategy.weights()] == shares
        losses = tuner.train(rows, seed=0).losses
        found.append((gathers.n, [answer.tokens for answer in answers], losses))
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(found))


@pytest.mark.slow
@pytest.mark.cluster
def test_a_sharded_model_gathers_its_blocks_once_to_be_scored(tmp_path):
    run_group(2, score_and_train, tmp_path)
    for rank in range(2):
        (once, *kept), (always, *again) = json.loads((tmp_path / f"{rank}.json").read_text())
        assert once == BLOCKS + 1  # and the root's own weights
        assert always == (BLOCKS + 1) * TOKENS
        assert kept == again
