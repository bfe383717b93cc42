"""Examples of different lengths side by side in one row, each attending to itself only.

No padding and no quadratic mask: attention runs per example (equal lengths together), everything
else is row-wise. Rows of a shared prefix appear once per example, so that every example keeps its
own backward pass, while `unique` names the rows whose forward matmuls are computed at all: the
first micro-batch computes the prefix, the others take it from there.

Shapes: T rows (tokens of all examples), P prefix rows, U unique rows, L answer tokens, H heads,
d head width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from taskeff.errors import ModelError
from taskeff.tasks.prompts import TokenizedExample


@dataclass(frozen=True)
class Ragged:
    """A micro-batch of examples in one row, ordered as in `members`.

    input_ids, position_ids: (1, T) int64. members: the examples' numbers in the whole set.
    lengths, answers: tokens and answer tokens of each; an example's last `answers` rows are those
    that predict its answer. unique: (U,) int64 rows to compute, expand: (T,) int64 from every row
    to its place among those, the P of the prefix before them if they are cached; None where no
    rows are shared. loss_rows, targets, owner: (L,) int64. keeps: P where later micro-batches want
    the prefix's rows; cached: whether an earlier one has computed them.
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
    keeps: int = 0
    cached: bool = False

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

    def whole(self, rows: Tensor, prefix: Tensor | None) -> Tensor:
        """(U, ...) -> with the (P, ...) rows before them that an earlier micro-batch computed."""
        return torch.cat([prefix, rows]) if self.cached and prefix is not None else rows

    def spread(self, rows: Tensor) -> Tensor:
        """What `whole` returns -> (T, ...)."""
        return rows if self.expand is None else rows.index_select(0, self.expand)


def lay_out(
    examples: Sequence[TokenizedExample],
    members: Sequence[int],
    n_prefix: int,
    device: torch.device,
    *,
    keeps: int = 0,
    cached: bool = False,
) -> Ragged:
    """The examples numbered `members` as one row; the first `n_prefix` tokens are common to all."""
    ids: list[int] = []
    positions: list[int] = []
    unique: list[int] = []
    expand: list[int] = []
    loss_rows: list[int] = []
    targets: list[int] = []
    for place, member in enumerate(members):
        example = examples[member]
        tokens = example.prompt_ids + example.answer_ids[:-1]
        shared = n_prefix if place or cached else 0
        expand += range(shared)
        before = len(unique) + (n_prefix if cached else 0)
        expand += range(before, before + len(tokens) - shared)
        unique += range(len(ids) + shared, len(ids) + len(tokens))
        first = len(ids) + len(example.prompt_ids) - 1
        loss_rows += range(first, first + len(example.answer_ids))
        targets += example.answer_ids
        ids += tokens
        positions += range(len(tokens))
    answers = tuple(len(examples[member].answer_ids) for member in members)
    shares = len(unique) < len(ids)

    def tensor(values: list[int]) -> Tensor:
        return torch.tensor(values, device=device)

    return Ragged(
        input_ids=tensor(ids)[None],
        position_ids=tensor(positions)[None],
        members=tuple(members),
        lengths=tuple(
            len(examples[m].prompt_ids) + len(examples[m].answer_ids) - 1 for m in members
        ),
        answers=answers,
        unique=tensor(unique) if shares else None,
        expand=tensor(expand) if shares else None,
        loss_rows=tensor(loss_rows),
        targets=tensor(targets),
        owner=tensor([place for place, count in enumerate(answers) for _ in range(count)]),
        keeps=keeps,
        cached=cached,
    )


@dataclass(frozen=True)
class _Active:
    layout: Ragged
    last: frozenset[nn.Module]  # modules whose queries are needed on answer rows only
    watch: Callable[[nn.Module, Tensor, Tensor], None] | None
    flash: bool


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
    flash: bool = False,
) -> Iterator[None]:
    """Let `model` attend per example of `layout` instead of along its whole row.

    Args:
        last: attention modules whose output is used on answer rows only.
        watch: called with (attention module, key, value) of every layer.
        flash: use flash-attn's variable-length kernel, one call for all examples.

    Raises:
        ModelError: the architecture does not go through transformers' attention interface, or
            `flash` without the package or on a model that it does not take.
    """
    if flash and (reason := flash_is_missing(model)):
        raise ModelError(f"flash attention cannot run: {reason}; use sdpa")
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
    token = _ACTIVE.set(_Active(layout, last, watch, flash))
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
    if active.flash:
        last = module in active.last
        return _flash(
            active.layout, last, query, key, value, scaling, sliding_window, softcap
        ), None
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


def flash_is_missing(model: PreTrainedModel) -> str | None:
    """Why flash-attn cannot run `model`; None where it can."""
    if find_spec("flash_attn") is None:
        return "the package flash-attn is not installed"
    if model.device.type != "cuda" or model.dtype not in (torch.float16, torch.bfloat16):
        return f"it takes float16 or bfloat16 on a GPU, not {model.dtype} on {model.device.type}"
    return None


def _flash(
    layout: Ragged,
    last: bool,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    window: int | None,
    cap: float | None,
) -> Tensor:
    """(1, H, T, d) -> (1, T, H, d) by one call; its causal mask is aligned at the ends."""
    from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found]

    q, k, v = (states.squeeze(0).transpose(0, 1).contiguous() for states in (query, key, value))
    counts = layout.answers if last else layout.lengths
    attended = flash_attn_varlen_func(
        q[layout.loss_rows] if last else q,
        k,
        v,
        cu_seqlens_q=_starts(counts, q.device),
        cu_seqlens_k=_starts(layout.lengths, q.device),
        max_seqlen_q=max(counts),
        max_seqlen_k=max(layout.lengths),
        softmax_scale=scaling,
        causal=True,
        window_size=(-1, -1) if window is None else (window - 1, 0),
        softcap=cap or 0.0,
    )
    if last:
        attended = q.new_zeros(q.shape).index_copy(0, layout.loss_rows, attended)
    return attended[None]


def _starts(counts: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor([0, *accumulate(counts)], dtype=torch.int32, device=device)


AttentionInterface.register(_NAME, _attention)
