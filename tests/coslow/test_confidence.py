"""Confidence of greedy answers: values, missing ones, long rows."""

import math

import pytest
import torch

from taskeff.coslow.confidence import score_confidence
from taskeff.errors import DataError
from tests.coslow.reference import build, examples_of


@pytest.fixture(scope="module")
def model():
    return build(attention="sdpa")


@pytest.fixture(scope="module")
def prompts():
    return [example.prompt_ids for example in examples_of(9, 40)]


@torch.no_grad()
def plain(model, prompt, n):
    ids, probs = list(prompt), []
    for _ in range(n):
        top = model(torch.tensor([ids])).logits[0, -1].softmax(-1).max(0)
        probs.append(float(top.values))
        ids.append(int(top.indices))
    return probs, tuple(ids[len(prompt) :])


def test_values_are_those_of_a_plain_loop(model, prompts):
    means = score_confidence(model, prompts, stop_ids=[], max_new_tokens=4)
    minus_ppl = score_confidence(model, prompts, stop_ids=[], max_new_tokens=4, metric="ppl")
    for mean, ppl, prompt in zip(means, minus_ppl, prompts, strict=True):
        probs, _ = plain(model, prompt, 4)
        assert mean.value == pytest.approx(sum(probs) / 4, abs=1e-5)
        assert ppl.value == pytest.approx(-(math.prod(probs) ** (-1 / 4)), rel=1e-4)


def test_an_empty_answer_is_missing_with_a_reason(model, prompts):
    stop = plain(model, prompts[0], 1)[1]
    found = score_confidence(model, prompts, stop_ids=stop, max_new_tokens=2)
    assert found[0].value is None
    assert found[0].reason == "the model ended its turn without an answer"


def test_long_rows(model, prompts):
    pool = [prompts[0], tuple(range(1, 97)) * 3, prompts[1]]
    settings = {"stop_ids": [1], "max_new_tokens": 2}
    skipped = score_confidence(model, pool, on_long="skip", **settings)
    assert skipped[1].value is None
    assert "288 prompt tokens exceed the 254 there is room for; shorten" in skipped[1].reason
    assert skipped[2].value is not None
    strange = [*pool, (1, 97)]
    with pytest.raises(DataError, match="row 3: token 97 is outside the model's vocabulary of 97"):
        score_confidence(model, strange, on_long="skip", **settings)
    cut = (*pool[1][:127], *pool[1][-127:])
    truncated = score_confidence(model, pool, on_long="truncate", **settings)
    expected = score_confidence(model, [cut], **settings)[0]
    assert truncated[1].value == pytest.approx(expected.value, abs=1e-5)


def test_bad_input(model):
    with pytest.raises(DataError, match="row 1: the prompt is empty"):
        score_confidence(model, [(1,), ()], stop_ids=[1])
