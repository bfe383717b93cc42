"""Rows that share a prefix -> one packed row, block mask, positions.

The one way rows are batched for training, evaluation, confidence and gradients. A packed row is
`prefix, suffix_1, ..., suffix_n`: every suffix sees the prefix and itself only, its positions
continue the prefix's, so losses and gradients are those of the separate rows while the prefix is
computed once, forward and backward.

Shapes: B rows, T tokens, L answer tokens, n examples, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from taskeff.errors import DataError
from taskeff.tasks.prompts import TokenizedExample

MIN_SHARED = 32  # below this many common tokens a shared prefix saves nothing worth its mask


@dataclass(frozen=True)
class PackedBatch:
    """n examples as model input, with the rows that predict answer tokens.

    input_ids, position_ids: (B, T) int64. attention_mask: (B, 1, T, T) bool (packed, B = 1) or
    (B, T) int64 (padded). loss_rows, targets, owner: (L,) int64 - flat index into B*T of the row
    that predicts each answer token, that token, and the example it belongs to.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor
    loss_rows: Tensor
    targets: Tensor
    owner: Tensor
    n_examples: int
    prefix_length: int
    segments: Tensor | None = None

    @property
    def n_tokens(self) -> int:
        """Tokens that go through the model."""
        return self.input_ids.numel()

    def to(self, device: torch.device | str) -> PackedBatch:
        """The same batch on `device`."""
        moved = {
            name: value.to(device)
            for name, value in self.__dict__.items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)


def as_example(example: TokenizedExample | Mapping[str, Sequence[int]]) -> TokenizedExample:
    """`example` itself, or the mapping with the keys `prompt_ids` and `answer_ids` as one."""
    if isinstance(example, TokenizedExample):
        return example
    return TokenizedExample(
        tuple(example["prompt_ids"]), tuple(example["answer_ids"]), str(example.get("id", ""))
    )


def shared_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens common to the start of every prompt, leaving each at least one token of its own."""
    if not prompts:
        return 0
    first, last = min(map(tuple, prompts)), max(map(tuple, prompts))
    limit = min(len(prompt) for prompt in prompts) - 1
    length = 0
    while length < limit and first[length] == last[length]:
        length += 1
    return max(length, 0)


def pack(examples: Sequence[TokenizedExample], *, prefix_length: int | None = None) -> PackedBatch:
    """All `examples` as one packed row.

    Args:
        prefix_length: tokens computed once for all; None finds the longest common prefix and
            uses it from `MIN_SHARED` tokens on. 0 packs the examples side by side.
    """
    _check(examples)
    if prefix_length is None:
        common = shared_prefix([example.prompt_ids for example in examples])
        prefix_length = common if common >= MIN_SHARED and len(examples) > 1 else 0
    ids = list(examples[0].prompt_ids[:prefix_length])
    positions = list(range(prefix_length))
    segments = [0] * prefix_length
    loss_rows: list[int] = []
    targets: list[int] = []
    owner: list[int] = []
    for index, example in enumerate(examples):
        # The last answer token predicts nothing that is scored.
        suffix = example.prompt_ids[prefix_length:] + example.answer_ids[:-1]
        first_loss = len(ids) + len(example.prompt_ids) - prefix_length - 1
        ids.extend(suffix)
        positions.extend(range(prefix_length, prefix_length + len(suffix)))
        segments.extend([index + 1] * len(suffix))
        loss_rows.extend(range(first_loss, first_loss + len(example.answer_ids)))
        targets.extend(example.answer_ids)
        owner.extend([index] * len(example.answer_ids))
    segment = torch.tensor(segments)
    return PackedBatch(
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        attention_mask=block_mask(segment)[None, None],
        loss_rows=torch.tensor(loss_rows),
        targets=torch.tensor(targets),
        owner=torch.tensor(owner),
        n_examples=len(examples),
        prefix_length=prefix_length,
        segments=segment,
    )


def pad(examples: Sequence[TokenizedExample], *, pad_id: int = 0) -> PackedBatch:
    """All `examples` as right-padded rows: the plain layout, and the oracle of the packed one."""
    _check(examples)
    rows = [list(example.prompt_ids + example.answer_ids[:-1]) for example in examples]
    width = max(map(len, rows))
    loss_rows: list[int] = []
    targets: list[int] = []
    owner: list[int] = []
    for index, example in enumerate(examples):
        first_loss = index * width + len(example.prompt_ids) - 1
        loss_rows.extend(range(first_loss, first_loss + len(example.answer_ids)))
        targets.extend(example.answer_ids)
        owner.extend([index] * len(example.answer_ids))
    return PackedBatch(
        input_ids=torch.tensor([row + [pad_id] * (width - len(row)) for row in rows]),
        position_ids=torch.arange(width).expand(len(rows), width).contiguous(),
        attention_mask=torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
        loss_rows=torch.tensor(loss_rows),
        targets=torch.tensor(targets),
        owner=torch.tensor(owner),
        n_examples=len(examples),
        prefix_length=0,
    )


def block_mask(segments: Tensor) -> Tensor:
    """(T,) segment numbers -> (T, T) bool: causal, within the own segment or to segment 0."""
    query, key = segments[:, None], segments[None, :]
    causal = torch.ones(len(segments), len(segments), dtype=torch.bool).tril()
    return causal & ((query == key) | (key == 0))


def batches(
    examples: Sequence[TokenizedExample], *, max_tokens: int
) -> Iterator[tuple[list[int], PackedBatch]]:
    """Packed batches over `examples`, sorted by length, each at most `max_tokens` tokens long.

    The shared prefix is found once over all examples and counted in every batch. Yields the
    examples' indices with each batch; one example longer than `max_tokens` gets its own batch.
    """
    common = shared_prefix([example.prompt_ids for example in examples])
    prefix = common if common >= MIN_SHARED and len(examples) > 1 else 0
    order = sorted(
        range(len(examples)),
        key=lambda i: len(examples[i].prompt_ids) + len(examples[i].answer_ids),
    )
    chosen: list[int] = []
    used = prefix
    for index in order:
        example = examples[index]
        cost = len(example.prompt_ids) - prefix + len(example.answer_ids) - 1
        if chosen and used + cost > max_tokens:
            yield chosen, pack([examples[i] for i in chosen], prefix_length=prefix)
            chosen, used = [], prefix
        chosen.append(index)
        used += cost
    if chosen:
        yield chosen, pack([examples[i] for i in chosen], prefix_length=prefix)


def answer_logits(model: torch.nn.Module, batch: PackedBatch) -> Tensor:
    """(L, V) logits at the rows that predict answer tokens."""
    inputs = {
        "input_ids": batch.input_ids,
        "position_ids": batch.position_ids,
        "attention_mask": batch.attention_mask,
        "use_cache": False,
    }
    if len(batch.input_ids) == 1:
        return model(**inputs, logits_to_keep=batch.loss_rows).logits[0]
    return model(**inputs).logits.flatten(0, 1)[batch.loss_rows]


def example_losses(model: torch.nn.Module, batch: PackedBatch) -> Tensor:
    """(n,) fp32 losses: each example's own mean negative log-likelihood over its answer."""
    losses = torch.nn.functional.cross_entropy(
        answer_logits(model, batch).float(), batch.targets, reduction="none"
    )
    totals = losses.new_zeros(batch.n_examples).index_add(0, batch.owner, losses)
    counts = losses.new_zeros(batch.n_examples).index_add(0, batch.owner, torch.ones_like(losses))
    return totals / counts


def _check(examples: Sequence[TokenizedExample]) -> None:
    if not examples:
        raise DataError("a batch needs at least one example")
    for example in examples:
        if not example.prompt_ids or not example.answer_ids:
            raise DataError(f"example {example.id!r} has an empty prompt or answer")
