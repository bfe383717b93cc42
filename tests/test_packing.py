"""The packed row against the padded batch: same losses, same gradients, prefix computed once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig, Qwen2Config

from taskeff.packing import batches, example_losses, pack, pad, shared_prefix
from taskeff.tasks.prompts import TokenizedExample

VOCAB = 71
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
CONFIGS = [
    LlamaConfig(**SIZES, num_key_value_heads=2),
    Qwen2Config(**SIZES, num_key_value_heads=2),
    GPTNeoXConfig(**SIZES),
]


def examples(shared: int, n: int = 6, seed: int = 0) -> list[TokenizedExample]:
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high):
        size = int(torch.randint(low, high, (1,), generator=generator))
        return tuple(torch.randint(0, VOCAB, (size,), generator=generator).tolist())

    prefix = tuple(torch.randint(0, VOCAB, (shared,), generator=generator).tolist())
    return [TokenizedExample(prefix + draw(2, 12), draw(1, 5), str(i)) for i in range(n)]


def gradients(model, batch):
    model.zero_grad()
    losses = example_losses(model, batch)
    losses.mean().backward()
    grads = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return losses.detach(), grads


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.model_type)
@pytest.mark.parametrize("shared", [0, 40])
def test_losses_and_gradients_are_those_of_the_padded_batch(config, shared):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    rows = examples(shared)
    packed = pack(rows)
    assert (packed.prefix_length > 0) == (shared > 0)
    losses, grads = gradients(model, packed)
    expected_losses, expected = gradients(model, pad(rows))
    torch.testing.assert_close(losses, expected_losses, rtol=1e-5, atol=1e-6)
    assert float((grads - expected).norm() / expected.norm()) < 2e-6


def test_the_prefix_is_counted_once():
    rows = examples(40)
    saved = pad(rows).attention_mask.sum() - pack(rows).n_tokens
    assert saved == 40 * (len(rows) - 1) + (pack(rows).prefix_length - 40) * (len(rows) - 1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 50), st.integers(1, 9), st.integers(10, 200), st.integers(0, 5))
def test_batches_hold_every_example_once_within_the_limit(shared, n, limit, seed):
    rows = examples(shared, n, seed)
    seen = []
    for indices, batch in batches(rows, max_tokens=limit):
        seen += indices
        assert batch.n_tokens <= limit or len(indices) == 1
        assert batch.n_examples == len(indices)
        answers = [t for i in indices for t in rows[i].answer_ids]
        assert batch.targets.tolist() == answers
    assert sorted(seen) == list(range(n))


def test_identical_prompts_keep_a_token_of_their_own():
    assert shared_prefix([(1, 2, 3), (1, 2, 3)]) == 2
    assert shared_prefix([(1,), (1, 2)]) == 0
    assert shared_prefix([]) == 0
