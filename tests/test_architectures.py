"""Families that nobody wrote code for: two architectures calibrated from a configuration alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoTokenizer,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.helpers import run_cli, write_config

pytestmark = pytest.mark.slow
TEMPLATES = Path(__file__).parent / "tasks" / "templates"
RUN = {
    "name": "new",
    "tasks": {
        "calibration": ["name_gender", "part_of_speech"],
        "held_out": ["sentiment_words"],
    },
    # Enough for a fresh model to learn what an answer looks like: a curve must rise to be fitted.
    "training": {"budgets": [8, 16], "learning_rate": 1e-2, "max_steps": 60, "batch_size": 8},
    "evaluation": {"test_cap": 8},
    "coslow": {"n_examples": 8, "pool_cap": 16, "max_new_tokens": 3, "rank": 2, "quantile": 0.6},
    "curve": {"cap": 16},
}


def qwen3(vocabulary: int) -> Qwen3ForCausalLM:
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocabulary,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
        )
    )


def gpt_neox(vocabulary: int) -> GPTNeoXForCausalLM:
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=2048,
        )
    )


@pytest.mark.parametrize(
    ("make", "template"), [(qwen3, "qwen3"), (gpt_neox, None)], ids=["qwen3", "gpt-neox"]
)
def test_a_new_architecture_takes_a_configuration_only(
    make, template, tiny_model, tmp_path, monkeypatch, capsys
):
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    # Qwen3's own template, which thinks unless told not to; GPT-NeoX's models have none.
    tokenizer.chat_template = template and (TEMPLATES / f"{template}.jinja").read_text()
    folder = tmp_path / "model"
    make(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    values = {
        **RUN,
        "storage": str(tmp_path / "results"),
        "model": {"path": str(folder), "name": "new", "dtype": "float32"},
    }
    config = write_config(tmp_path, values)
    code, _, err = run_cli(monkeypatch, capsys, "calibrate", "--local", "-c", config)
    assert code == 0, err
    run = tmp_path / "results" / "new"
    calibration = json.loads((run / "calibration.json").read_text())
    assert [task["name"] for task in calibration["tasks"]] == ["name_gender", "part_of_speech"]
    assert all(-1 <= task["cos_low"] <= 1 for task in calibration["tasks"])
    assert len({task["cos_low"] for task in calibration["tasks"]}) == 2
    assert (run / "report.html").exists()
