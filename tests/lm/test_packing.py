"""Packed rows against padded ones and against each example alone."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from taskeff.errors import DataError
from taskeff.lm.packing import (
    CALL_TOKENS,
    MIN_SHARED,
    answer_logits,
    batches,
    block_mask,
    pack,
    pad,
    shared_prefix,
)
from taskeff.tasks.prompts import TokenizedExample
from tests.coslow.reference import build, examples_of


@pytest.fixture(scope="module")
def model():
    return build(attention="sdpa")


def answer_losses(model, batch):
    """One loss per answer token, example after example."""
    return torch.nn.functional.cross_entropy(
        answer_logits(model, batch), batch.targets, reduction="none"
    )


def gradient(model, batch):
    model.zero_grad()
    losses = answer_losses(model, batch)
    losses.sum().backward()
    flat = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return losses.detach(), torch.cat(flat)


@pytest.mark.parametrize("prefix", [40, 0])
def test_packed_losses_and_gradients_are_those_of_padded_rows(model, prefix):
    examples = examples_of(6, prefix)
    packed, padded = pack(examples), pad(examples)
    losses, grads = gradient(model, packed)
    expected, expected_grads = gradient(model, padded)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grads, expected_grads, rtol=1e-3, atol=1e-4)
    assert packed.prefix_length == (40 if prefix else 0)
    assert packed.n_tokens < padded.n_tokens


def training_gradient(model, batches_):
    """The gradient of one optimiser step: the mean over all answer tokens, pass by pass."""
    model.zero_grad()
    count = sum(len(batch.targets) for batch in batches_)
    for batch in batches_:
        losses = torch.nn.functional.cross_entropy(
            answer_logits(model, batch), batch.targets, reduction="sum"
        )
        (losses / count).backward()
    return [p.grad.clone() for p in model.parameters() if p.requires_grad]


def distance(ours, theirs):
    """||ours - theirs|| / ||theirs||"""
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("prefix", [40, 0])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma", "phi3"])
def test_the_training_gradient_is_that_of_the_padded_batch(name, method, prefix):
    """Each weight's own where products are float64; in float32 as near to that as the padded
    batch's gradient is, which on some processors is no nearer than 1e-5.

    The models compute their norms and angles in float32 whatever they are told.
    """
    model = build(name, attention="sdpa", scale=1.0)
    if method == "lora":
        # Adapters away from their start, where half of their gradient would be zero.
        settings = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
        model = get_peft_model(model, settings)
    examples = examples_of(16, prefix)
    split = {limit: [b for _, b in batches(examples, max_tokens=limit)] for limit in (9999, 120)}
    assert len(split[120]) > len(split[9999])
    rounded = {
        name: training_gradient(model, passes)
        for name, passes in {"padded": [pad(examples)], **split}.items()
    }
    model.to(torch.float64)
    exact = training_gradient(model, [pad(examples)])
    for passes in split.values():
        assert max(map(distance, training_gradient(model, passes), exact)) <= 1e-6
    off = {
        name: distance(
            *(torch.cat([g.flatten().double() for g in side]) for side in (found, exact))
        )
        for name, found in rounded.items()
    }
    assert off["padded"] <= 3e-5
    assert max(off.values()) <= max(1e-6, 2 * off["padded"])


def test_a_shared_prefix_is_counted_once():
    examples = examples_of(6, 40)
    alone = sum(len(e.prompt_ids) + len(e.answer_ids) - 1 for e in examples)
    assert pack(examples, prefix_length=0).n_tokens == alone
    assert pack(examples).n_tokens == alone - 5 * 40


def test_block_mask_by_hand():
    mask = block_mask(torch.tensor([0, 0, 1, 1, 2]))
    expected = [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]
    assert mask.int().tolist() == expected


@pytest.mark.parametrize(
    ("prompts", "length"),
    [
        ([], 0),
        ([(1, 2, 3)], 2),
        ([(1, 2, 3), (1, 2, 4)], 2),
        ([(1, 2), (1, 2, 4)], 1),  # each keeps a token of its own
        ([(5,), (6,)], 0),
        ([(1, 2, 9), (1, 3, 0), (1, 2, 9)], 1),
    ],
)
def test_shared_prefix(prompts, length):
    assert shared_prefix(prompts) == length


@pytest.mark.parametrize("max_tokens", [1, 90, 10_000])
def test_batches_hold_every_example_once_within_the_budget(model, max_tokens):
    examples = examples_of(9, 40)
    losses: dict[int, torch.Tensor] = {}
    for members, batch in batches(examples, max_tokens=max_tokens):
        assert batch.n_tokens <= max_tokens or len(members) == 1
        assert batch.prefix_length == 40 >= MIN_SHARED
        with torch.no_grad():
            found = answer_losses(model, batch)
        losses |= zip(members, found.split([len(examples[i].answer_ids) for i in members]))
    with torch.no_grad():
        expected = answer_losses(model, pad(examples))
    found = torch.cat([losses[index] for index in range(9)])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_rows_that_share_nothing_are_padded_in_groups_of_like_length():
    examples = examples_of(12, 0) + examples_of(3, 150)
    sizes = []
    for members, batch in batches(examples, max_tokens=400):
        rows = [len(examples[i].prompt_ids) + len(examples[i].answer_ids) - 1 for i in members]
        assert batch.prefix_length == 0 and batch.attention_mask is None
        assert batch.input_ids.shape == (len(members), max(rows))
        assert batch.n_tokens <= 400
        assert batch.n_tokens - sum(rows) <= CALL_TOKENS * len(members)
        sizes.append(len(members))
    assert sum(sizes) == 15 == len(examples)
    assert sizes[0] == 12


@pytest.mark.parametrize(
    "examples",
    [[], [TokenizedExample((), (1,), "a")], [TokenizedExample((1,), (), "a")]],
    ids=["none", "no prompt", "no answer"],
)
def test_nothing_to_pack_is_an_error(examples):
    with pytest.raises(DataError):
        pack(examples)
