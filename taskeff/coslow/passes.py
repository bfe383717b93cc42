"""The forward and backward passes that hand every linear's output gradients to a Gram matrix.

Shapes: T rows, U unique rows, D hidden, L answer tokens, V vocabulary, n examples of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from taskeff.coslow.gram import FullGram, ProjectedGram
from taskeff.coslow.linears import LoRA, Prefixes, Target, decoder_blocks, ragged_linears
from taskeff.lm.ragged import Ragged, ragged_attention


@dataclass(frozen=True)
class Work:
    """What every schedule is given.

    targets: the linears of each decoder block. pruned: names of the last block's linears that
    run on answer rows only. scale: multiplies the losses (fp16). flash: see `ragged_attention`.
    """

    model: PreTrainedModel
    targets: Sequence[Sequence[Target]]
    layouts: Sequence[Ragged]
    pruned: frozenset[str]
    projection: LoRA | None
    gram: ProjectedGram | FullGram
    scale: float = 1.0
    flash: bool = False

    def matrices(self, targets: Sequence[Target]) -> Mapping[str, Tensor] | None:
        """A of each recorded linear, None where there is no projection."""
        if self.projection is None:
            return None
        return {t.name: self.projection.matrix(t) for t in targets if t.recorded}

    def attention(
        self, layout: Ragged, last: frozenset[nn.Module] = frozenset()
    ) -> AbstractContextManager[None]:
        """The model attends per example of `layout`."""
        return ragged_attention(self.model, layout, last=last, flash=self.flash)

    def last_attention(self) -> frozenset[nn.Module]:
        """The last block's modules, whose attention is needed on answer rows only."""
        if not self.pruned:
            return frozenset()
        return frozenset(decoder_blocks(self.model)[1][-1].modules())


def example_losses(logits: Tensor, layout: Ragged) -> Tensor:
    """(L, V) logits of the answer rows -> (n,) fp32 mean loss of each example."""
    losses = cross_entropy(logits.float(), layout.targets, reduction="none")
    counts = torch.tensor(layout.answers, device=losses.device)
    totals = losses.new_zeros(len(counts)).index_add(0, layout.owner, losses)
    return totals / counts


def backward_whole(work: Work) -> Iterator[Tensor]:
    """The whole model, one micro-batch after the other; yields each one's (n,) losses."""
    targets = [target for block in work.targets for target in block]
    matrices = work.matrices(targets)
    last = work.last_attention()
    prefixes: Prefixes = {}
    for layout in work.layouts:
        record = work.gram.recorder(layout)
        with ExitStack() as stack, torch.enable_grad():
            stack.enter_context(work.attention(layout, last))
            stack.enter_context(
                ragged_linears(targets, layout, work.pruned, matrices, record, prefixes)
            )
            losses = example_losses(_logits(work.model, layout), layout)
            (losses.sum() * work.scale).backward()
        yield losses.detach()


def backward_by_layer(work: Work) -> Iterator[Tensor]:
    """One block for all micro-batches, then the block below: the gradients of one block at a time.

    Only the blocks' inputs are kept from the forward pass (one copy of shared rows); each block
    is run again for its backward pass.
    """
    blocks = list(decoder_blocks(work.model)[1])
    forward: Prefixes = {}
    saved = [_block_inputs(work, blocks, layout, forward) for layout in work.layouts]
    forward.clear()
    below: list[Tensor | None] = [None] * len(work.layouts)
    last = work.last_attention()
    losses: list[Tensor] = []
    for index in reversed(range(len(blocks))):
        matrices = work.matrices(work.targets[index])
        top = index == len(blocks) - 1
        prefixes: Prefixes = {}
        prefix = saved[0][-1].hidden[: work.layouts[0].keeps]
        for at, layout in enumerate(work.layouts):
            record = work.gram.recorder(layout)
            entry = saved[at].pop()
            hidden = layout.spread(layout.whole(entry.hidden, prefix))[None]
            hidden.requires_grad_(index > 0)
            with ExitStack() as stack, torch.enable_grad():
                stack.enter_context(work.attention(layout, last))
                stack.enter_context(
                    ragged_linears(
                        work.targets[index], layout, work.pruned, matrices, record, prefixes
                    )
                )
                out = entry.run(blocks[index], hidden)
                if top:
                    found = example_losses(_head(work.model, blocks, out, layout), layout)
                    (found.sum() * work.scale).backward()
                    losses.append(found.detach())
                else:
                    out.backward(below[at])
            below[at] = hidden.grad
    return iter(losses)


@dataclass
class _Entry:
    """What a decoder block was called with; hidden: (U, D)."""

    hidden: Tensor
    args: tuple[Any, ...] = ()
    named: dict[str, Any] = field(default_factory=dict)

    def run(self, block: nn.Module, hidden: Tensor) -> Tensor:
        """The block's output (1, T, D) for an input of the same shape."""
        return _first(block(hidden, *self.args, **self.named))


def _block_inputs(
    work: Work, blocks: Sequence[nn.Module], layout: Ragged, prefixes: Prefixes
) -> list[_Entry]:
    """Every block's input, without running the last block or the head."""
    entries: list[_Entry] = []

    def keep(block: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        named = dict(named)
        hidden = args[0] if args else named.pop("hidden_states")
        entries.append(_Entry(layout.compact(hidden[0]), args[1:], named))

    def skip(hidden_states: Tensor, *args: Any, **named: Any) -> Tensor:
        return hidden_states

    targets = [target for block in work.targets[:-1] for target in block]
    with ExitStack() as stack, torch.no_grad():
        for block in blocks:
            handle = block.register_forward_pre_hook(keep, with_kwargs=True)
            stack.callback(handle.remove)
        stack.enter_context(work.attention(layout))
        stack.enter_context(ragged_linears(targets, layout, (), None, None, prefixes))
        stack.enter_context(_replaced([blocks[-1]], skip))
        _logits(work.model, layout, rows=layout.loss_rows[:1])
    return entries


def _head(
    model: PreTrainedModel, blocks: Sequence[nn.Module], out: Tensor, layout: Ragged
) -> Tensor:
    """(L, V) logits from the last block's output: the model with its blocks taken out."""
    rows = out[:, layout.loss_rows]

    def pass_on(hidden_states: Tensor, *args: Any, **named: Any) -> Tensor:
        return rows

    with _replaced(blocks, pass_on):
        at = layout.loss_rows
        return model(
            input_ids=layout.input_ids[:, at],
            position_ids=layout.position_ids[:, at],
            use_cache=False,
        ).logits[0]


def _logits(model: PreTrainedModel, layout: Ragged, rows: Tensor | None = None) -> Tensor:
    return model(
        input_ids=layout.input_ids,
        position_ids=layout.position_ids,
        use_cache=False,
        logits_to_keep=layout.loss_rows if rows is None else rows,
    ).logits[0]


@contextmanager
def _replaced(blocks: Sequence[nn.Module], forward: Callable[..., Tensor]) -> Iterator[None]:
    try:
        for block in blocks:
            block.forward = forward
        yield
    finally:
        for block in blocks:
            block.__dict__.pop("forward", None)


def _first(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
