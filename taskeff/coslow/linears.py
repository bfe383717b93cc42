"""Which linear layers gradients are taken of, and how they run on ragged rows.

Layers are found by structure: the linears of the decoder blocks, the longest list of modules of
one class. While rows are shared or unused, a linear computes only those that matter and hands
every example's own output gradient to whoever records it.

Shapes: T rows, U unique rows, D in features, O out features, R LoRA rank.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from taskeff.errors import ModelError
from taskeff.lm.device import on_device
from taskeff.lm.ragged import Ragged, ragged_attention


@dataclass(frozen=True)
class LoRA:
    """The random projection: A is drawn as peft draws it, seeded by (seed, module name)."""

    rank: int = 64
    alpha: int = 32
    seed: int = 0

    @property
    def scale(self) -> float:
        """What multiplies B A x in a LoRA layer."""
        return self.alpha / self.rank

    def matrix(self, target: Target) -> Tensor:
        """(R, D) A of one linear: the same on any device, in any order and any schedule."""
        seed = hashlib.sha256(f"{self.seed}:{target.name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(seed[:8], "big") >> 1)
        a = torch.empty(self.rank, target.weight.shape[1])
        nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=generator)
        return on_device(a.to(target.weight.dtype), target.weight.device)


@dataclass(frozen=True)
class Target:
    """One linear. weight: (O, D). recorded: its gradient is wanted, not only its output."""

    name: str
    module: nn.Module
    recorded: bool

    @property
    def bias(self) -> Tensor | None:
        bias = self.module.bias
        return bias if isinstance(bias, Tensor) else None

    @property
    def weight(self) -> Tensor:
        weight = self.module.get_parameter("weight")
        return weight.T if isinstance(self.module, Conv1D) else weight


# Of each linear, the outputs (P, O) and the recorded inputs (P, R or D) of the prefix's rows.
Prefixes = dict[str, tuple[Tensor, Tensor | None]]
# Called in the backward pass with a target, (T, O) output gradients and (T, R) A x - or (T, D) x
# where there is no projection.
Record = Callable[[Target, Tensor, Tensor], None]


def decoder_blocks(model: nn.Module) -> tuple[str, Sequence[nn.Module]]:
    """Name and modules of the decoder's blocks.

    Raises:
        ModelError: the model has no list of equal blocks with linear layers.
    """
    lists = [
        (name, list(module))
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len({type(block) for block in module}) == 1
        and any(_is_linear(child) for child in module[0].modules())
    ]
    if not lists:
        raise ModelError(f"{type(model).__name__} has no list of decoder blocks with linear layers")
    # The outermost list of most parameters: a mixture's experts lie inside a block.
    return max(lists, key=lambda found: sum(p.numel() for b in found[1] for p in b.parameters()))


def find_targets(model: nn.Module, names: Collection[str] | None = None) -> list[list[Target]]:
    """The linears of each decoder block.

    Args:
        names: last parts of the names of those to record (`q_proj`, `down_proj`); None: all.

    Raises:
        ModelError: a name is found in no block, or a linear's weights are quantised.
    """
    prefix, blocks = decoder_blocks(model)
    found = [
        [
            Target(f"{prefix}.{index}.{name}", module, names is None or _last(name) in names)
            for name, module in block.named_modules()
            if _is_linear(module)
        ]
        for index, block in enumerate(blocks)
    ]
    known = {_last(target.name) for block in found for target in block}
    if missing := set(names or ()) - known:
        raise ModelError(
            f"no linear layer is called {', '.join(sorted(missing))}; "
            f"this model has {', '.join(sorted(known))}"
        )
    for target in (target for block in found for target in block):
        if not target.weight.is_floating_point() or target.weight.dim() != 2:
            raise ModelError(f"{target.name} is quantised; load the model in bf16 or fp32")
    return found


def target_names(model: nn.Module, names: Collection[str] | None = None) -> list[str]:
    """Last parts of the names of the linears that are recorded, sorted: what fingerprints state."""
    blocks = find_targets(model, names)
    return sorted({_last(t.name) for block in blocks for t in block if t.recorded})


def prunable(model: PreTrainedModel, last: Sequence[Target], layout: Ragged) -> frozenset[str]:
    """The last block's linears that no key or value depends on: needed on answer rows only.

    Found by asking autograd in one small forward pass, so that it holds for any architecture.
    """
    outputs: dict[str, Tensor] = {}
    seen: list[Tensor] = []
    inside = set(decoder_blocks(model)[1][-1].modules())

    def watch(module: nn.Module, key: Tensor, value: Tensor) -> None:
        if module in inside:
            seen.extend((key, value))

    def keep(name: str):
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            outputs[name] = output.requires_grad_() if output.is_leaf else output

        return hook

    with ExitStack() as stack, torch.enable_grad():
        for target in last:
            stack.callback(target.module.register_forward_hook(keep(target.name)).remove)
        stack.enter_context(ragged_attention(model, layout, watch=watch))
        model(input_ids=layout.input_ids, position_ids=layout.position_ids, use_cache=False)
        total = torch.stack([states.float().sum() for states in seen]).sum()
        names = list(outputs)
        gradients = torch.autograd.grad(total, [outputs[n] for n in names], allow_unused=True)
    return frozenset(name for name, grad in zip(names, gradients, strict=True) if grad is None)


@contextmanager
def ragged_linears(
    targets: Sequence[Target],
    layout: Ragged,
    pruned: Collection[str],
    projections: Mapping[str, Tensor] | None,
    record: Record | None,
    prefixes: Prefixes,
) -> Iterator[None]:
    """Let `targets` compute unique rows only (pruned ones: answer rows) and record gradients.

    Args:
        projections: A of each recorded linear; None records the input itself.
        record: None runs without gradients.
        prefixes: filled by a prefix's own pass, read by the micro-batches that share it.
    """
    # Weights are frozen, so something else has to make the outputs require a gradient.
    anchor = torch.zeros((), device=layout.input_ids.device, requires_grad=record is not None)
    try:
        for target in targets:
            pruned_here = target.name in pruned
            run = _Run(target, layout, pruned_here, projections, record, prefixes)
            target.module.forward = _forward(run, anchor)
        yield
    finally:
        for target in targets:
            target.module.__dict__.pop("forward", None)


@dataclass(frozen=True)
class _Run:
    target: Target
    layout: Ragged
    pruned: bool
    projections: Mapping[str, Tensor] | None
    record: Record | None
    prefixes: Prefixes

    def compute(self, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """(T, D) -> outputs and what is recorded of the inputs, of the rows that matter."""
        rows = hidden[self.layout.loss_rows] if self.pruned else self.layout.compact(hidden)
        kept = None
        if self.record is not None and self.target.recorded:
            a = None if self.projections is None else self.projections[self.target.name]
            kept = rows if a is None else rows @ a.T
        out = linear(rows, self.target.weight, self.target.bias)
        if not self.layout.members:
            self.prefixes[self.target.name] = out, kept
        return out, kept

    def give(self, rows: Tensor, kept: bool = False) -> Tensor:
        """The computed rows (outputs, or `kept` inputs) -> (T, ...), zero where nobody looks."""
        if self.pruned:
            return self._place(rows)
        return self.layout.spread(rows, self.prefixes.get(self.target.name, (None, None))[kept])

    def _place(self, rows: Tensor) -> Tensor:
        out = rows.new_zeros(self.layout.input_ids.shape[1], rows.shape[1])
        return out.index_copy_(0, self.layout.loss_rows, rows)

    def back(self, delta: Tensor) -> Tensor:
        """(T, O) output gradients -> (T, D) input gradients."""
        if self.pruned:
            return self._place(delta[self.layout.loss_rows] @ self.target.weight)
        return delta @ self.target.weight


def _forward(run: _Run, anchor: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda hidden: _Linear.apply(hidden, anchor, run)


class _Linear(torch.autograd.Function):
    """y = W x + b on the rows that matter; saves A x (or x) of those instead of x of all."""

    @staticmethod
    def forward(ctx, hidden: Tensor, anchor: Tensor, run: _Run) -> Tensor:  # type: ignore[override]
        out, ctx.kept = run.compute(hidden[0])
        ctx.run = run
        return run.give(out)[None]

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[override]
        run: _Run = ctx.run
        delta = gradient[0]
        if ctx.kept is not None and run.record is not None:
            run.record(run.target, delta, run.give(ctx.kept, kept=True))
            ctx.kept = None
        return (run.back(delta)[None] if ctx.needs_input_grad[0] else None), None, None


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, Conv1D))


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]
