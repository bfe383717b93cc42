"""Rows that share a prefix -> one packed row, block mask, positions.

A packed row is `prefix, suffix_1, ..., suffix_n`: every suffix sees the prefix and itself only,
its positions continue the prefix's, so losses and gradients are those of the separate rows while
the prefix is computed once, forward and backward. Rows that share nothing are padded in groups of
similar length instead: side by side in one row they would pay attention over each other's tokens.

Shapes: B rows, T tokens, L answer tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from taskeff.errors import DataError
from taskeff.lm.device import on_device
from taskeff.tasks.prompts import TokenizedExample

MIN_SHARED = 32  # below this many common tokens a shared prefix saves nothing worth its mask
CALL_TOKENS = 64  # padding worth less than this many tokens does not pay for a pass of its own


@dataclass(frozen=True)
class PackedBatch:
    """Examples as model input, with the rows that predict answer tokens.

    input_ids, position_ids: (B, T) int64. segments: (T,) int64 of a packed row (B = 1), 0 its
    prefix. attention_mask: (B, T) int64 of padded rows, or None where the causal mask alone hides
    the padding. loss_rows, targets: (L,) int64 - flat index into B*T of the row that predicts each
    answer token, and that token, example after example. columns: (C,) int64 those of T that
    predict any; places: (L,) int64 where each answer token's is among them.
    """

    input_ids: Tensor
    position_ids: Tensor
    segments: Tensor | None
    attention_mask: Tensor | None
    loss_rows: Tensor
    targets: Tensor
    columns: Tensor
    places: Tensor
    prefix_length: int

    @property
    def mask(self) -> Tensor | None:
        """What the model takes as attention_mask: of a packed row (1, 1, T, T) bool."""
        if self.segments is None:
            return self.attention_mask
        return block_mask(self.segments)[None, None]

    @property
    def n_tokens(self) -> int:
        """Tokens that go through the model."""
        return self.input_ids.numel()

    def to(self, device: torch.device) -> PackedBatch:
        """The same batch on `device`."""
        moved = {
            name: on_device(value, device)
            for name, value in self.__dict__.items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)


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
        prefix_length = common_prefix(_prompts(examples))
    ids = list(examples[0].prompt_ids[:prefix_length])
    positions = list(range(prefix_length))
    segments = [0] * prefix_length
    loss_rows: list[int] = []
    targets: list[int] = []
    for index, example in enumerate(examples):
        # The last answer token predicts nothing that is scored.
        suffix = example.prompt_ids[prefix_length:] + example.answer_ids[:-1]
        first_loss = len(ids) + len(example.prompt_ids) - prefix_length - 1
        ids.extend(suffix)
        positions.extend(range(prefix_length, prefix_length + len(suffix)))
        segments.extend([index + 1] * len(suffix))
        loss_rows.extend(range(first_loss, first_loss + len(example.answer_ids)))
        targets.extend(example.answer_ids)
    rows = torch.tensor(loss_rows)
    return PackedBatch(
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        segments=torch.tensor(segments),
        attention_mask=None,
        loss_rows=rows,
        targets=torch.tensor(targets),
        columns=rows,
        places=torch.arange(len(rows)),
        prefix_length=prefix_length,
    )


def pad(examples: Sequence[TokenizedExample]) -> PackedBatch:
    """All `examples` as right-padded rows: the plain layout, and the oracle of the packed one."""
    _check(examples)
    rows = [list(example.prompt_ids + example.answer_ids[:-1]) for example in examples]
    width = max(map(len, rows))
    loss_rows: list[int] = []
    targets: list[int] = []
    for index, example in enumerate(examples):
        first_loss = index * width + len(example.prompt_ids) - 1
        loss_rows.extend(range(first_loss, first_loss + len(example.answer_ids)))
        targets.extend(example.answer_ids)
    # Here, not where they are used: a device would be asked how many there are.
    columns, places = torch.unique(torch.tensor(loss_rows) % width, return_inverse=True)
    return PackedBatch(
        input_ids=torch.tensor([row + [0] * (width - len(row)) for row in rows]),
        position_ids=torch.arange(width).expand(len(rows), width).contiguous(),
        segments=None,
        attention_mask=torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
        loss_rows=torch.tensor(loss_rows),
        targets=torch.tensor(targets),
        columns=columns,
        places=places,
        prefix_length=0,
    )


def block_mask(segments: Tensor) -> Tensor:
    """(T,) segment numbers -> (T, T) bool: causal, within the own segment or to segment 0."""
    query, key = segments[:, None], segments[None, :]
    n = len(segments)
    causal = torch.ones(n, n, dtype=torch.bool, device=segments.device).tril()
    return causal & ((query == key) | (key == 0))


def batches(
    examples: Sequence[TokenizedExample], *, max_tokens: int
) -> Iterator[tuple[list[int], PackedBatch]]:
    """Batches over `examples`, sorted by length, each at most `max_tokens` tokens long.

    The shared prefix is found once over all examples and counted in every batch; without one the
    batches are padded. Yields the examples' indices with each batch; one example longer than
    `max_tokens` gets its own batch.
    """
    prefix = common_prefix(_prompts(examples))
    for members in _groups(examples, prefix, max_tokens):
        chosen = [examples[index] for index in members]
        # Padding lies after every real token: no token that counts can see it.
        padded = replace(pad(chosen), attention_mask=None) if not prefix else None
        yield members, padded or pack(chosen, prefix_length=prefix)


def n_batches(examples: Sequence[TokenizedExample], *, max_tokens: int) -> int:
    """How many batches `batches` makes of them."""
    return len(_groups(examples, common_prefix(_prompts(examples)), max_tokens))


def _groups(examples: Sequence[TokenizedExample], prefix: int, max_tokens: int) -> list[list[int]]:
    """The examples' indices of each batch."""
    lengths = [len(e.prompt_ids) + len(e.answer_ids) - 1 - prefix for e in examples]
    found: list[list[int]] = []
    used = width = 0
    for index in sorted(range(len(examples)), key=lengths.__getitem__):
        length = lengths[index]
        if prefix:
            full = found and used + length > max_tokens
        else:
            full = found and (
                length * (len(found[-1]) + 1) > max_tokens
                or (length - width) * len(found[-1]) > CALL_TOKENS
            )
        if full or not found:
            found.append([])
            used = prefix
        found[-1].append(index)
        used += length
        width = length
    return found


def common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens at the start of every prompt that are worth computing once."""
    common = shared_prefix(prompts)
    return common if common >= MIN_SHARED and len(prompts) > 1 else 0


def _prompts(examples: Sequence[TokenizedExample]) -> list[tuple[int, ...]]:
    return [example.prompt_ids for example in examples]


def answer_logits(model: torch.nn.Module, batch: PackedBatch) -> Tensor:
    """(L, V) logits at the rows that predict answer tokens."""
    width = batch.input_ids.shape[1]
    logits = model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        attention_mask=batch.mask,
        use_cache=False,
        # Only these go through the output layer, which is most of a small model.
        logits_to_keep=batch.columns,
    ).logits
    return logits[batch.loss_rows // width, batch.places]


def _check(examples: Sequence[TokenizedExample]) -> None:
    if not examples:
        raise DataError("a batch needs at least one example")
    for example in examples:
        if not example.prompt_ids or not example.answer_ids:
            raise DataError(f"example {example.id!r} has an empty prompt or answer")
