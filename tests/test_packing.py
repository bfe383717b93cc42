"""Packed rows against padded ones and against each example alone."""

import pytest
import torch

from taskeff.errors import DataError
from taskeff.packing import (
    MIN_SHARED,
    batches,
    block_mask,
    example_losses,
    pack,
    pad,
    shared_prefix,
)
from taskeff.tasks.prompts import TokenizedExample
from tests.coslow.reference import build, examples_of


@pytest.fixture(scope="module")
def model():
    return build(attention="sdpa")


def gradient(model, batch):
    model.zero_grad()
    losses = example_losses(model, batch)
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
    losses = torch.empty(9)
    for members, batch in batches(examples, max_tokens=max_tokens):
        assert batch.n_tokens <= max_tokens or len(members) == 1
        assert batch.prefix_length == 40 >= MIN_SHARED
        with torch.no_grad():
            losses[members] = example_losses(model, batch)
    with torch.no_grad():
        expected = example_losses(model, pad(examples))
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "examples",
    [[], [TokenizedExample((), (1,), "a")], [TokenizedExample((1,), (), "a")]],
    ids=["none", "no prompt", "no answer"],
)
def test_nothing_to_pack_is_an_error(examples):
    with pytest.raises(DataError):
        pack(examples)
