"""The forward and backward passes that hand every linear's output gradients to a Gram matrix.

Blocks are taken in groups, from the last to the first: all at once is fastest; each alone keeps
least, for one more forward pass.

Shapes: T rows, U unique rows, D hidden, L answer tokens, V vocabulary, n examples of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from taskeff.coslow.gram import Floats, Gathering
from taskeff.coslow.linears import LoRA, Prefixes, Target, decoder_blocks, ragged_linears
from taskeff.errors import ModelError
from taskeff.lm.device import on_device
from taskeff.lm.ragged import Ragged, ragged_attention


@dataclass(frozen=True)
class Work:
    """What is computed.

    targets: the linears of each decoder block. groups: numbers of the blocks that are taken
    together, in order. layouts: the micro-batches, before them the prefix that they share, if any.
    pruned: names of the last block's linears that run on answer rows only. losses: filled for
    every example of the whole set that is among the micro-batches. scale: multiplies the losses
    (fp16).
    """

    model: PreTrainedModel
    targets: Sequence[Sequence[Target]]
    groups: Sequence[range]
    layouts: Sequence[Ragged]
    pruned: frozenset[str]
    projection: LoRA | None
    gathering: Gathering
    losses: Floats
    scale: float = 1.0


def example_losses(logits: Tensor, layout: Ragged) -> Tensor:
    """(L, V) logits of the answer rows -> (n,) fp32 mean loss of each example."""
    losses = cross_entropy(logits.float(), layout.targets, reduction="none")
    counts = on_device(layout.answers, losses.device)
    totals = losses.new_zeros(len(counts)).index_add(0, layout.owner, losses)
    return totals / counts


def backward(work: Work) -> Iterator[int]:
    """Compute group after group, the last first; yields a group's number once the gradients of
    its linears are gathered.

    Only the groups' inputs are kept from the forward pass (one copy of shared rows); each group
    but the last is run again for its backward pass.

    Raises:
        ModelError: an architecture whose blocks are no plain chain, in more than one group.
    """
    inputs: list[list[Tensor | None]] = [[None] for _ in work.layouts]
    for group in work.groups[:-1]:
        stage, prefix = _Stage(work, group, records=False), inputs[0][-1]
        for layout, entries in zip(work.layouts, inputs, strict=True):
            with torch.no_grad():
                _, out = stage.run(layout, entries[-1], prefix)
            entries.append(layout.compact(out[0]))
    below: list[Tensor | None] = [None] * len(work.layouts)
    for number in reversed(range(len(work.groups))):
        stage, prefix = _Stage(work, work.groups[number], records=True), inputs[0][-1]
        for at, layout in enumerate(work.layouts):
            with torch.set_grad_enabled(bool(layout.members)):  # a prefix has no loss
                hidden, out = stage.run(layout, inputs[at].pop(), prefix)
                if not layout.members:
                    continue
                if number == len(work.groups) - 1:
                    losses = example_losses(out, layout)
                    work.losses[list(layout.members)] = losses.detach().double().cpu().numpy()
                    (losses.sum() * work.scale).backward()
                else:
                    out.backward(below[at])
            below[at] = hidden.grad
        yield number


class _Stage:
    """A group of blocks, for one micro-batch after the other; the prefix comes first."""

    def __init__(self, work: Work, group: range, *, records: bool):
        self.work, self.group, self.records = work, group, records
        self.blocks = list(decoder_blocks(work.model)[1])
        self.targets = [target for index in group for target in work.targets[index]]
        self.prefixes: Prefixes = {}
        self.matrices: dict[str, Tensor] | None = None
        if records and work.projection is not None:
            draw = work.projection.matrix
            self.matrices = {t.name: draw(t) for t in self.targets if t.recorded}

    def run(
        self, layout: Ragged, entry: Tensor | None, prefix: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The group's input and its output (1, T, D); (L, V) logits from the last group.

        Args:
            entry: (U, D) input of the group's first block; None where it is the model's first.
            prefix: (P, D), the prefix's.
        """
        model, recorder = self.work.model, None
        if self.records:
            recorder = self.work.gathering.recorder(layout)
        top = len(self.blocks) - 1 in self.group and bool(layout.members)
        pruning = top and bool(self.work.pruned)
        last = frozenset(self.blocks[-1].modules()) if pruning else frozenset()
        with ExitStack() as stack:
            stack.enter_context(ragged_attention(model, layout, last=last))
            linears = ragged_linears(
                self.targets, layout, self.work.pruned, self.matrices, recorder, self.prefixes
            )
            if len(self.group) == len(self.blocks):  # as the architecture runs itself
                stack.enter_context(linears)
                return layout.input_ids, _logits(model, layout)
            hidden, calls = self._calls(layout)
            if entry is not None:
                hidden = layout.spread(entry, prefix)[None]
                hidden.requires_grad_(torch.is_grad_enabled())
            out = hidden
            with linears:
                for index in self.group:
                    args, named = calls[index]
                    found = self.blocks[index](out, *args, **named)
                    out = found[0] if isinstance(found, tuple) else found
            return hidden, self._head(out, layout) if top else out

    def _calls(self, layout: Ragged) -> tuple[Tensor, list[tuple[tuple, dict[str, Any]]]]:
        """The first block's input, and what every block is called with besides."""
        seen: list[tuple[Tensor, tuple, dict[str, Any]]] = []

        def skip(hidden_states: Tensor, *args: Any, **named: Any) -> Tensor:
            seen.append((hidden_states, args, named))
            return hidden_states

        with torch.no_grad(), _replaced(self.blocks, skip):
            _logits(self.work.model, layout, rows=layout.position_ids[0, :1])
        if len(seen) != len(self.blocks) or any(one[0] is not seen[0][0] for one in seen):
            raise ModelError(
                f"{type(self.work.model).__name__} does more between its blocks than call them in "
                "turn, so their gradients have to fit memory all at once; allow more memory"
            )
        return seen[0][0], [one[1:] for one in seen]

    def _head(self, out: Tensor, layout: Ragged) -> Tensor:
        """(L, V) logits from the last block's output: the model with its blocks taken out."""
        at = layout.loss_rows
        rows = out[:, at]

        def pass_on(hidden_states: Tensor, *args: Any, **named: Any) -> Tensor:
            return rows

        with _replaced(self.blocks, pass_on):
            return self.work.model(
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
