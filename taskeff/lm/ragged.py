"""Examples of different lengths side by side in one row, each attending to itself only.

No padding and no quadratic mask: attention runs per example (equal lengths together), everything
else is row-wise. Rows of a shared prefix appear once per example, so that every example keeps its
own backward pass, while `unique` names the rows whose forward matmuls are computed at all: a
prefix goes through the model once, alone, and every micro-batch takes its rows from there.

Shapes: T rows (tokens of all examples), P prefix rows, U unique rows, L answer tokens, H heads,
d head width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from taskeff.errors import ModelError
from taskeff.lm.device import on_device
from taskeff.tasks.prompts import TokenizedExample


@dataclass(frozen=True)
class Ragged:
    """A micro-batch of examples in one row, ordered as in `members`.

    input_ids, position_ids: (1, T) int64. members: the examples' numbers in the whole set; none of
    a prefix. lengths, answers: tokens and answer tokens of each; an example's last `answers` rows
    are those that predict its answer. unique: (U,) int64 rows to compute, expand: (T,) int64 from
    every row to its place among the P of the prefix and those; None where no rows are shared.
    loss_rows, targets, owner: (L,) int64.
    """

    input_ids: Tensor
    position_ids: Tensor
    members: tuple[int, ...]
    lengths: tuple[int, ...]
    answers: tuple[int, ...]
    unique: Tensor | None
    expand: Tensor | None
    loss_rows: Tensor
    targets: Tensor
    owner: Tensor

    def spans(self) -> Iterator[tuple[int, int]]:
        """First and past-the-last row of each example."""
        start = 0
        for length in self.lengths:
            yield start, start + length
            start += length

    def alike(self) -> Iterator[tuple[int, int, int]]:
        """Runs of examples of one shape: (number of examples, length, answers)."""
        for shape, run in groupby(zip(self.lengths, self.answers, strict=True)):
            yield len(list(run)), *shape

    def compact(self, rows: Tensor) -> Tensor:
        """(T, ...) -> (U, ...): one copy of what is shared."""
        return rows if self.unique is None else rows[self.unique]

    def spread(self, rows: Tensor, prefix: Tensor | None) -> Tensor:
        """(U, ...) and the prefix's (P, ...) -> (T, ...)."""
        if self.expand is None or prefix is None:
            return rows
        return torch.cat([prefix, rows]).index_select(0, self.expand)


def lay_out(
    examples: Sequence[TokenizedExample],
    members: Sequence[int],
    n_prefix: int,
    device: torch.device,
) -> Ragged:
    """The examples numbered `members` as one row; the first `n_prefix` tokens are common to all."""
    ids: list[int] = []
    positions: list[int] = []
    unique: list[int] = []
    expand: list[int] = []
    loss_rows: list[int] = []
    targets: list[int] = []
    for member in members:
        example = examples[member]
        tokens = example.prompt_ids + example.answer_ids[:-1]
        expand += range(n_prefix)
        expand += range(n_prefix + len(unique), len(unique) + len(tokens))
        unique += range(len(ids) + n_prefix, len(ids) + len(tokens))
        first = len(ids) + len(example.prompt_ids) - 1
        loss_rows += range(first, first + len(example.answer_ids))
        targets += example.answer_ids
        ids += tokens
        positions += range(len(tokens))
    answers = tuple(len(examples[member].answer_ids) for member in members)

    def tensor(values: list[int]) -> Tensor:
        return on_device(values, device)

    return Ragged(
        input_ids=tensor(ids)[None],
        position_ids=tensor(positions)[None],
        members=tuple(members),
        lengths=tuple(rows_of(examples[member]) for member in members),
        answers=answers,
        unique=tensor(unique) if n_prefix else None,
        expand=tensor(expand) if n_prefix else None,
        loss_rows=tensor(loss_rows),
        targets=tensor(targets),
        owner=tensor([place for place, count in enumerate(answers) for _ in range(count)]),
    )


def lay_out_prefix(tokens: Sequence[int], device: torch.device) -> Ragged:
    """A prefix alone: nobody's answer."""
    row = on_device(tokens, device)[None]
    none = row.new_zeros(0)
    places = torch.arange(len(tokens), device=device)[None]
    return Ragged(row, places, (), (len(tokens),), (0,), None, None, none, none, none)


def rows_of(example: TokenizedExample) -> int:
    """Tokens of an example that go through the model: its last one predicts nothing."""
    return len(example.prompt_ids) + len(example.answer_ids) - 1


@dataclass(frozen=True)
class _Active:
    layout: Ragged
    last: frozenset[nn.Module]  # modules whose queries are needed on answer rows only
    watch: Callable[[nn.Module, Tensor, Tensor], None] | None


_ACTIVE: ContextVar[_Active | None] = ContextVar("taskeff_ragged", default=None)
_NAME = "taskeff_ragged"
# What attention functions are told besides; anything else set would change the result.
_HARMLESS = {"position_ids", "is_causal", "output_attentions", "use_cache", "layer_past"}


@contextmanager
def ragged_attention(
    model: PreTrainedModel,
    layout: Ragged,
    *,
    last: frozenset[nn.Module] = frozenset(),
    watch: Callable[[nn.Module, Tensor, Tensor], None] | None = None,
) -> Iterator[None]:
    """Let `model` attend per example of `layout` instead of along its whole row.

    Args:
        last: attention modules whose output is used on answer rows only.
        watch: called with (attention module, key, value) of every layer.

    Raises:
        ModelError: the architecture does not go through transformers' attention interface.
    """
    if not getattr(model, "_supports_attention_backend", False):
        raise ModelError(
            f"{type(model).__name__} has an attention of its own that examples cannot share a row "
            "of; use an architecture on transformers' attention interface (Llama, Qwen, Gemma, "
            "Mistral, Phi-3, GPT-NeoX, GPT-2, ...)"
        )
    configs: dict[int, Any] = {
        id(m.config): m.config for m in model.modules() if hasattr(m, "config")
    }
    before = {key: config._attn_implementation for key, config in configs.items()}
    token = _ACTIVE.set(_Active(layout, last, watch))
    try:
        for config in configs.values():
            config._attn_implementation_internal = _NAME
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation_internal = before[key]
        _ACTIVE.reset(token)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
    **others,
) -> tuple[Tensor, None]:
    """(1, H, T, d) queries, keys and values -> (1, T, H, d), causal within each example."""
    active = _ACTIVE.get()
    if active is None:
        raise RuntimeError("ragged attention outside its context")
    unknown = [name for name in others if others[name] is not None and name not in _HARMLESS]
    if unknown or attention_mask is not None:
        raise ModelError(
            f"the attention of {type(module).__name__} takes {unknown or ['a mask']}, "
            "which per-example attention does not know"
        )
    if active.watch is not None:
        active.watch(module, key, value)
    groups = query.shape[1] // key.shape[1]
    alike = list(active.layout.alike())
    # Squeezed and split, not indexed: an index's backward pass fills the whole row every time.
    sizes = [count * length for count, length, _ in alike]
    rows = (states.squeeze(0).split(sizes, dim=1) for states in (query, key, value))
    parts = zip(*rows, strict=True)
    out = []
    for (count, length, answers), part in zip(alike, parts, strict=True):
        q, k, v = (states.unflatten(1, (count, length)).transpose(0, 1) for states in part)
        k, v = (x.repeat_interleave(groups, dim=1) if groups > 1 else x for x in (k, v))
        kept = answers if module in active.last else length
        mask = _mask(kept, length, sliding_window, query.device)
        attended = _attend(q[:, :, length - kept :], k, v, mask, scaling, softcap)
        if kept < length:
            attended = nn.functional.pad(attended, (0, 0, length - kept, 0))
        out.append(attended.transpose(1, 2).flatten(0, 1))
    return torch.cat(out)[None], None


def _mask(kept: int, length: int, window: int | None, device: torch.device) -> Tensor | None:
    """(kept, length) bool for the last `kept` queries; None means plain causal or everything."""
    window = length if window is None else window
    if length <= window and kept in (1, length):
        return None
    at = torch.arange(length, device=device)
    behind = at[length - kept :, None] - at[None, :]
    return (behind >= 0) & (behind < window)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float | None, cap: float | None
) -> Tensor:
    causal = mask is None and q.shape[-2] > 1
    if cap is None:
        return scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, scale=scaling
        )
    if causal:
        mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / cap) * cap
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.float().softmax(-1).to(q.dtype) @ v


AttentionInterface.register(_NAME, _attention)
