"""The tests' model is small, the same every time, and able to follow and to learn."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from taskeff.tasks.prompts import Prompter
from tests import tiny_model as tiny
from tests.tiny_model import Row


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path):
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture
def model(tiny_model: Path):
    return AutoModelForCausalLM.from_pretrained(tiny_model, use_safetensors=True)


def answers(model, tokenizer, rows: list[Row]) -> tuple[list[str], list[float]]:
    """The greedy answer to each row and the probability of its first token."""
    texts, confidences = [], []
    for row in rows:
        prompt = torch.tensor([Prompter(tokenizer, row.description).prompt_ids(row.text)])
        with torch.no_grad():
            out = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=8,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
        confidences.append(out.logits[0].softmax(-1).max().item())
        texts.append(
            tokenizer.decode(out.sequences[0, prompt.shape[1] :], skip_special_tokens=True)
        )
    return texts, confidences


def accuracy(model, tokenizer, rows: list[Row]) -> float:
    texts, _ = answers(model, tokenizer, rows)
    return sum(text == row.target for text, row in zip(texts, rows, strict=True)) / len(rows)


def new_task(seed: int) -> Iterator[Row]:
    """Two kinds of word under labels the model was never trained to give them."""
    rng = random.Random(seed)
    members = {"left": tiny.MEMBERS["animal"], "right": tiny.MEMBERS["tool"]}
    description = tiny.instruction("a word", "Decide on which shelf it belongs.", list(members))
    while True:
        answer = rng.choice(sorted(members))
        yield Row(description, f"Item: {rng.choice(members[answer])}", answer)


def test_it_is_small_and_complete(tiny_model: Path, tokenizer, model):
    assert (tiny_model / "model.safetensors").stat().st_size < 1_000_000
    assert (tiny_model / "tokenizer.json").exists()
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert len(special) == 3 and None not in special
    assert model.config.max_position_embeddings >= 1024
    assert len(tokenizer) <= model.config.vocab_size


def test_any_text_survives_the_tokenizer(tokenizer):
    text = "Ünïcode 漢字 \U0001f600\n\ttabs, 12.5 % and <tags>"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text


def test_it_was_trained_on_the_prompts_that_taskeff_renders(tokenizer):
    row = next(tiny.kind_of_word(random.Random(0)))
    ids, bears_loss = tiny.encode(tokenizer, [row])
    ours = Prompter(tokenizer, row.description).encode(row.text, row.target, end_of_turn=True)
    start = bears_loss.index(True)
    assert tuple(ids[:start]) == ours.prompt_ids
    assert tuple(ids[start : start + sum(bears_loss)]) == ours.answer_ids


@pytest.mark.parametrize("family", tiny.FAMILIES, ids=lambda family: family.__name__)
def test_zero_shot_is_above_zero(family, model, tokenizer):
    rows = [next(family(random.Random(seed))) for seed in range(30)]
    assert accuracy(model, tokenizer, rows) > 0.5


def test_confidence_varies_on_an_unseen_task(model, tokenizer):
    _, confidences = answers(model, tokenizer, list(islice(new_task(1), 30)))
    assert max(confidences) - min(confidences) > 0.1


def test_32_examples_teach_it_a_new_task_and_4_do_less(tiny_model: Path, tokenizer):
    test = list(islice(new_task(2), 60))
    scores = []
    for budget in (0, 4, 32):
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        if budget:
            source = ([row] for row in cycle(list(islice(new_task(3), budget))))
            tiny.train(model, tokenizer, source, steps=40, learning_rate=5e-3, batch=8)
        scores.append(accuracy(model, tokenizer, test))
    assert scores[0] < 0.5 < scores[2]
    assert scores[0] < scores[2] - 0.3
    assert scores[1] < scores[2]


def test_the_same_script_writes_the_same_weights(tmp_path: Path):
    digests = [
        hashlib.sha256((tiny.build(tmp_path / name, steps=3) / file).read_bytes()).hexdigest()
        for name in ("a", "b")
        for file in ("model.safetensors", "tokenizer.json")
    ]
    assert digests[:2] == digests[2:]


def test_the_cache_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    built = []

    def build(folder: Path) -> Path:
        built.append(folder)
        return folder

    monkeypatch.setattr(tiny, "build", build)
    assert tiny.cached(tmp_path) == tiny.cached(tmp_path)
    assert len(built) == 1
