"""Confidence of greedy answers: values, missing ones, long rows, streaming."""

import math

import pytest
import torch

from taskeff.coslow.confidence import score_confidence, stream_confidence
from taskeff.errors import ConfigError, DataError
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
        probs, tokens = plain(model, prompt, 4)
        assert mean.tokens == tokens
        assert mean.value == pytest.approx(sum(probs) / 4, abs=1e-5)
        assert ppl.value == pytest.approx(-(math.prod(probs) ** (-1 / 4)), rel=1e-4)


def test_an_empty_answer_is_missing_with_a_reason(model, prompts):
    stop = plain(model, prompts[0], 1)[1]
    found = score_confidence(model, prompts, stop_ids=stop, max_new_tokens=2)
    assert found[0].value is None
    assert found[0].reason == "the model ended its turn without an answer"


def test_a_stream_is_read_a_chunk_at_a_time(model, prompts):
    read = []

    def pool():
        for index, prompt in enumerate(prompts):
            read.append(index)
            yield prompt

    settings = {"stop_ids": [1], "max_new_tokens": 2}
    stream = stream_confidence(model, pool(), chunk=4, **settings)
    first = next(stream)
    assert read == [0, 1, 2, 3]
    whole = score_confidence(model, prompts, **settings)
    found = [first, *stream]
    assert [one.tokens for one in found] == [one.tokens for one in whole]
    assert [one.value for one in found] == pytest.approx([one.value for one in whole], abs=1e-5)


def test_long_rows(model, prompts):
    pool = [prompts[0], tuple(range(1, 97)) * 3, prompts[1]]
    settings = {"stop_ids": [1], "max_new_tokens": 2}
    with pytest.raises(DataError, match="pool row 1: 288 prompt tokens exceed the 254"):
        score_confidence(model, pool, **settings)
    skipped = score_confidence(model, pool, on_long="skip", **settings)
    assert skipped[1].value is None
    assert skipped[1].reason == "288 prompt tokens exceed the 254 there is room for"
    assert skipped[2].value is not None
    strange = [*pool, (1, 97)]
    with pytest.raises(DataError, match="row 3: token 97 is outside the model's vocabulary of 97"):
        score_confidence(model, strange, on_long="skip", **settings)
    cut = (*pool[1][:127], *pool[1][-127:])
    truncated = score_confidence(model, pool, on_long="truncate", **settings)
    expected = score_confidence(model, [cut], **settings)[0]
    assert truncated[1].tokens == expected.tokens
    assert truncated[1].value == pytest.approx(expected.value, abs=1e-5)


def test_repeats_are_seeded_samples_all_reported(model, prompts):
    settings = {"stop_ids": [5, 6], "max_new_tokens": 4, "repeats": 3}
    found = score_confidence(model, prompts, seed=1, **settings)
    assert found == score_confidence(model, prompts, seed=1, **settings)
    assert found != score_confidence(model, prompts, seed=2, **settings)
    for one in found:
        assert len(one.repeats) == 3
        known = [value for value in one.repeats if value is not None]
        assert one.value == pytest.approx(sum(known) / len(known))
    assert any(len(set(one.repeats)) > 1 for one in found)
    alone = score_confidence(model, prompts, seed=1, max_tokens=1, **settings)
    assert [one.tokens for one in alone] == [one.tokens for one in found]
    chunks = list(stream_confidence(model, prompts, seed=1, chunk=2, **settings))
    assert [one.tokens for one in chunks] == [one.tokens for one in found]


@pytest.mark.parametrize(
    ("pool", "settings", "error", "message"),
    [
        ([], {}, DataError, "the pool is empty"),
        ([(1,), ()], {}, DataError, "pool row 1: the prompt is empty"),
        ([(1,)], {"metric": "entropy"}, ConfigError, "use mean_top_prob or ppl"),
        ([(1,)], {"repeats": 0}, ConfigError, "at least one"),
        ([(1,)], {"on_long": "cut"}, ConfigError, "use error, skip or truncate"),
    ],
)
def test_bad_input(model, pool, settings, error, message):
    with pytest.raises(error, match=message):
        score_confidence(model, pool, stop_ids=[1], **settings)
