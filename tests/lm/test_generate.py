"""Batched generation against plain batch-1 loops, on random models."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
)

from taskeff.errors import DataError, ModelError
from taskeff.lm.generate import Generation, greedy

VOCAB = 61
TINY = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
}
CONFIGS = {
    "llama": LlamaConfig(**TINY, num_key_value_heads=2),
    "mistral-window": MistralConfig(**TINY, num_key_value_heads=2, sliding_window=16),
    "gpt2": GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=256),
    "neox": GPTNeoXConfig(**TINY),
}


def build(name="llama", seed=0, scale=6.0):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="sdpa").eval()
    with torch.no_grad():
        for parameter in model.parameters():  # sharper than at initialisation: no near-ties
            parameter.mul_(scale if parameter.dim() > 1 else 1.0)
    return model


@pytest.fixture(scope="module")
def llama():
    return build()


def prompts_of(n, prefix, seed=0, lengths=(3, 17)):
    generator = torch.Generator().manual_seed(seed)

    def draw(length):
        return torch.randint(VOCAB, (length,), generator=generator).tolist()

    head = draw(prefix)
    sizes = torch.randint(*lengths, (n,), generator=generator).tolist()
    return [[*head, i % VOCAB, *draw(size)] for i, size in enumerate(sizes)]


@torch.no_grad()
def plain(model, prompt, max_new_tokens, stop_ids):
    ids, tokens, probs = list(prompt), [], []
    for _ in range(max_new_tokens):
        logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
        token = int(logits.argmax())
        if token in stop_ids:
            return tokens, probs, True
        tokens.append(token)
        probs.append(float(logits.float().softmax(-1)[token]))
        ids.append(token)
    return tokens, probs, False


def compare(found, model, prompts, max_new_tokens, stop_ids):
    assert [generation.index for generation in found] == list(range(len(prompts)))
    for generation, prompt in zip(found, prompts, strict=True):
        tokens, probs, stopped = plain(model, prompt, max_new_tokens, stop_ids)
        assert list(generation.tokens) == tokens
        assert generation.top_probs == pytest.approx(probs, abs=2e-6)
        assert generation.stopped == stopped


@pytest.mark.parametrize("prefix", [0, 40])
@pytest.mark.parametrize("max_tokens", [1, 300, 8192])
def test_same_tokens_and_probabilities_as_a_plain_loop(llama, prefix, max_tokens):
    prompts = prompts_of(11, prefix)
    stop = {3, 10, 20, 31, 44}
    found = greedy(llama, prompts, max_new_tokens=8, stop_ids=stop, max_tokens=max_tokens)
    compare(found, llama, prompts, 8, stop)
    assert len({len(generation.tokens) for generation in found}) > 2  # rows left at many steps


@pytest.mark.parametrize("name", ["mistral-window", "gpt2", "neox"])
def test_other_architectures(name):
    model = build(name)
    for prompts in (prompts_of(5, 40, lengths=(3, 12)), prompts_of(5, 0, lengths=(3, 12))):
        compare(greedy(model, prompts, max_new_tokens=6, stop_ids={1}), model, prompts, 6, {1})


def test_an_immediate_stop_leaves_an_empty_answer(llama):
    prompts = prompts_of(4, 0)
    first = plain(llama, prompts[2], 1, ())[0][0]
    found = greedy(llama, prompts, max_new_tokens=5, stop_ids=[first])
    assert found[2] == Generation(2, (), (), None, stopped=True)


def test_generation_config_is_ignored(llama):
    prompts = prompts_of(3, 0)
    before = greedy(llama, prompts, max_new_tokens=8, stop_ids=[1])
    llama.generation_config.repetition_penalty = 1.8
    llama.generation_config.do_sample = True
    assert greedy(llama, prompts, max_new_tokens=8, stop_ids=[1]) == before


def test_a_model_in_training_comes_back_in_training(llama):
    llama.train()
    greedy(llama, prompts_of(2, 0), max_new_tokens=2, stop_ids=[1])
    assert llama.training
    llama.eval()


@torch.no_grad()
def constrained(model, prompt, choices, stop_ids):
    """The label by plain recomputation: at each step the best token that some label allows."""
    done: list[int] = []
    while True:
        alive = [c for c in choices if list(c[: len(done)]) == done]
        if len(alive) == 1:
            return choices.index(alive[0])
        logits = model(torch.tensor([prompt + done]), use_cache=False).logits[0, -1]
        options = {}
        for choice in alive:
            if len(choice) == len(done):
                options[None] = max(float(logits[stop]) for stop in stop_ids)
            else:
                options[choice[len(done)]] = float(logits[choice[len(done)]])
        best = max(options, key=options.get)
        if best is None:
            return choices.index(tuple(done))
        done.append(best)


@pytest.mark.parametrize(
    "choices",
    [
        [(5,), (6, 7), (8, 9, 9)],
        [(5, 6), (5, 7), (8,), (8, 9, 10), (8, 9, 11)],
        [(5, 6, 7, 8), (5, 6, 7, 9)],
        [(12,)],
    ],
    ids=["distinct-first", "branches", "forced-chain", "single"],
)
@pytest.mark.parametrize("prefix", [0, 40])
def test_choice_is_that_of_plain_restricted_decoding(llama, choices, prefix):
    prompts = prompts_of(16, prefix, seed=4)
    stop = [1, 2]
    found = greedy(llama, prompts, max_new_tokens=4, stop_ids=stop, choices=choices)
    expected = [constrained(llama, prompt, choices, stop) for prompt in prompts]
    assert [generation.choice for generation in found] == expected
    assert len(set(expected)) >= min(len(choices), 2)
    compare(found, llama, prompts, 4, stop)


def test_no_prompts_no_generations(llama):
    assert greedy(llama, [], max_new_tokens=3, stop_ids=[1]) == []


@pytest.mark.parametrize(
    ("prompts", "arguments", "message"),
    [
        ([[1, 2], []], {}, "row 1: the prompt is empty"),
        ([[1], [2] * 255], {}, "row 1: 255 prompt tokens and 3 new ones exceed .* window of 256"),
        ([[1]], {"choices": [(4,), (4,)]}, "choices 0 and 1 have the same tokens"),
        ([[1]], {"choices": [(4,), ()]}, "choice 1 has no tokens"),
        ([[1]], {"choices": [(4,), (4, 5)], "stop_ids": []}, "give stop_ids"),
        ([[1]], {"max_new_tokens": 0}, "at least 1"),
    ],
)
def test_bad_input_names_the_row(llama, prompts, arguments, message):
    with pytest.raises(DataError, match=message):
        greedy(llama, prompts, **{"max_new_tokens": 3, "stop_ids": [1], **arguments})


def test_logits_that_are_not_finite_name_the_row():
    model = build()
    with torch.no_grad():
        model.model.embed_tokens.weight[7] = float("nan")
    with pytest.raises(ModelError, match="row 1: the model's logits are not finite"):
        greedy(model, [[1, 2], [7, 3, 4]], max_new_tokens=2, stop_ids=[0])
