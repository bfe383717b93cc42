"""The vLLM engine without vLLM: what it is asked, what is read from its answer.

The engine itself needs a GPU and is not run here.
"""

import math
import sys
from types import ModuleType, SimpleNamespace

import pytest
from transformers import LlamaConfig

from taskeff.config import CosLowConfig, ModelConfig, ScoringConfig
from taskeff.coslow.engines import (
    BuiltinEngine,
    VLLMEngine,
    answer_confidence,
    engine_of,
    in_this_process,
)
from taskeff.errors import ConfigError

MODEL = ModelConfig(path="org/model", name="model", revision="r1")
SCORING = ScoringConfig(engine="vllm", gpus_per_actor=2)


def given(token, p):
    return {token: SimpleNamespace(logprob=math.log(p)), 0: SimpleNamespace(logprob=-9.0)}


@pytest.fixture
def vllm(monkeypatch):
    """A module that answers with two tokens and a stop, and notes what it is asked."""
    module = ModuleType("vllm")
    module.__spec__ = SimpleNamespace()  # type: ignore[assignment]
    module.made, module.asked = [], []  # type: ignore[attr-defined]

    class LLM:
        def __init__(self, **settings):
            module.made.append(settings)

        def generate(self, inputs, sampling, use_tqdm):
            module.asked.append((inputs, sampling, use_tqdm))
            return [
                SimpleNamespace(
                    outputs=[
                        SimpleNamespace(
                            token_ids=[3, 4, 9],
                            logprobs=[given(3, 0.5), given(4, 0.9), given(9, 0.1)],
                        )
                    ]
                )
                for _ in inputs
            ]

    module.LLM = LLM  # type: ignore[attr-defined]
    module.SamplingParams = lambda **named: named  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    window = LlamaConfig(max_position_embeddings=6)
    monkeypatch.setattr("taskeff.models.load_architecture", lambda _: window)
    return module


def test_it_is_asked_for_pure_greedy_answers_and_their_own_probabilities(vllm):
    engine = VLLMEngine(MODEL, CosLowConfig(), SCORING)
    found = engine.score([[1, 2], [5]], stop_ids=[7, 9], max_new_tokens=3)
    assert [one.value for one in found] == pytest.approx([0.7, 0.7])
    (made,), ((inputs, sampling, bar),) = vllm.made, vllm.asked
    assert (made["model"], made["revision"], made["tensor_parallel_size"]) == ("org/model", "r1", 2)
    assert made["generation_config"] == "vllm"
    assert inputs == [{"prompt_token_ids": [1, 2]}, {"prompt_token_ids": [5]}]
    assert (sampling["temperature"], sampling["max_tokens"], bar) == (0.0, 3, False)
    assert sampling["stop_token_ids"] == [7, 9]
    assert engine.model is None


def test_prompts_are_cut_to_the_window_where_the_settings_say_so(vllm):
    for on_long, shown in (("skip", [1, 2, 3, 4, 5]), ("truncate", [1, 4, 5])):
        engine = VLLMEngine(MODEL, CosLowConfig(on_long=on_long), SCORING)
        engine.score([[1, 2, 3, 4, 5], [6]], stop_ids=[], max_new_tokens=3)
        inputs, *_ = vllm.asked[-1]
        assert [one["prompt_token_ids"] for one in inputs] == [shown, [6]]


def test_without_an_actor_the_process_keeps_its_threads_and_its_gpu(monkeypatch):
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for there in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        found = in_this_process(ScoringConfig())
        assert (found.threads_per_actor, found.gpus_per_actor) == (3, float(there))
    assert in_this_process(SCORING).gpus_per_actor == 2


def test_confidence_is_the_mean_or_minus_the_perplexity_of_the_answers_tokens():
    probs = {3: 0.5, 4: 0.25}
    logprobs = [given(token, p) for token, p in probs.items()]
    mean = answer_confidence([3, 4], logprobs, {9}, "mean_top_prob")
    minus_ppl = answer_confidence([3, 4], logprobs, {9}, "ppl")
    assert mean.value == pytest.approx(0.375)
    assert minus_ppl.value == pytest.approx(-math.exp(-(math.log(0.5) + math.log(0.25)) / 2))
    empty = answer_confidence([9], [given(9, 0.9)], {9}, "ppl")
    assert (empty.value, empty.reason) == (None, "the model ended its turn without an answer")


def test_what_it_cannot_run_on_is_refused(vllm, monkeypatch):
    assert engine_of(SCORING) is VLLMEngine
    assert engine_of(ScoringConfig()) is BuiltinEngine
    for gpus in (None, 0.5, 1.5):
        with pytest.raises(ConfigError, match="vllm takes whole GPUs"):
            engine_of(SCORING.model_copy(update={"gpus_per_actor": gpus}))
    monkeypatch.delitem(sys.modules, "vllm")
    with pytest.raises(ConfigError, match=r"pip install 'taskeff\[vllm\]'"):
        engine_of(SCORING)
