"""The vLLM path without vLLM: what it is asked, what is read from its answer, how shards survive.

The engine itself needs a GPU and is not run here.
"""

import math
import random

import pytest

from taskeff.coslow.candidates import Candidate
from taskeff.coslow.shards import Shard, read_parts
from taskeff.distributed import vllm
from taskeff.errors import ConfigError
from taskeff.storage import Store


def shard(number=0, good=5):
    lengths = [2] * good + [0]
    tokens = b"".join(int(t).to_bytes(4, "little") for t in range(2 * good))
    return Shard(
        dataset="d",
        number=number,
        last=True,
        duplicates=0,
        indices=list(range(good + 1)),
        wheres=[f"f, line {i}" for i in range(good + 1)],
        errors=[""] * good + ["not JSON"],
        lengths=lengths,
        tokens=tokens,
        stop_ids=[7, 9],
        max_new_tokens=3,
    )


def answered(row):
    """What the engine would make of a request: two tokens, then a stop."""
    p = 0.5 + row["position"] / 100
    return {
        **row,
        "generated_tokens": [3, 4, 9],
        "logprobs": [{t: {"logprob": math.log(p)}} for t in (3, 4, 9)],
    }


@pytest.mark.parametrize("seed", range(3))
def test_shards_come_together_whatever_the_order_of_their_rows(tmp_path, seed):
    records = [{**shard(n, good).to_record(), "error": ""} for n, good in [(0, 5), (1, 0), (2, 3)]]
    rows = [row for record in records for row in vllm.rows_of(record)]
    assert len(rows) == 5 + 1 + 3
    random.Random(seed).shuffle(rows)
    answer = vllm.Answer("mean_top_prob")
    candidate = Candidate(None, Store(str(tmp_path)), (), 0)  # type: ignore[arg-type]
    collector = vllm.Collector({"d": candidate})
    found = [s for row in rows for s in collector(answer(answered(vllm.request(row))))]
    assert sorted((s["number"], s["rows"], s["unscored"]) for s in found) == [
        (0, 6, 1),
        (1, 1, 1),
        (2, 4, 1),
    ]
    first = next(s for s in found if s["number"] == 0)
    assert first["part"] == shard(0, 5).part
    assert first["problems"] == ["f, line 5: not JSON"]
    indices, values = read_parts(candidate.folder, [first["part"]])
    assert indices == list(range(6))
    assert values[:5] == pytest.approx([0.5, 0.51, 0.52, 0.53, 0.54])
    assert values[5] is None


def test_a_request_is_greedy_and_knows_where_to_stop():
    row = next(vllm.rows_of({**shard().to_record(), "error": ""}))
    asked = vllm.request(row)
    assert asked["tokenized_prompt"] == [0, 1]
    assert asked["sampling_params"]["temperature"] == 0
    assert asked["sampling_params"]["stop_token_ids"] == [7, 9]
    assert asked["sampling_params"]["max_tokens"] == 3


def test_confidence_is_that_of_the_builtin_engine():
    logprobs = [{3: {"logprob": math.log(0.5)}}, {"4": {"logprob": math.log(0.25)}}, {9: {}}]
    mean = vllm.confidence([3, 4, 9], logprobs, {9}, "mean_top_prob")
    assert mean.value == pytest.approx(0.375)
    perplexity = vllm.confidence([3, 4, 9], logprobs, {9}, "ppl")
    assert perplexity.value == pytest.approx(-math.exp(-math.log(0.5 * 0.25) / 2))
    nothing = vllm.confidence([9], [{9: {}}], {9}, "ppl")
    assert nothing == (None, "the model ended its turn without an answer")


def test_an_engine_that_failed_on_a_row_leaves_its_reason():
    row = vllm.request(next(vllm.rows_of({**shard().to_record(), "error": ""})))
    found = vllm.Answer("ppl")({**row, "__inference_error__": "ValueError: too long"})
    assert (found["value"], found["reason"]) == (None, "ValueError: too long")


def test_without_vllm_the_engine_is_refused(monkeypatch):
    from tests.distributed.candidates import rank_config

    config = rank_config("m", "m.yaml", "out", "f", scoring={"engine": "vllm"})
    monkeypatch.setattr(vllm.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"taskeff\[vllm\]"):
        vllm.check(config)
    monkeypatch.setattr(vllm.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ConfigError, match="whole GPUs"):
        vllm.check(config)
