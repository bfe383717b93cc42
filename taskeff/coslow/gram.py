"""Recorded gradients -> inner products: the one place where examples meet.

Shapes: N examples, T rows, D in features, O out features, R LoRA rank.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from taskeff.coslow.linears import Target
from taskeff.lm.ragged import Ragged

Floats = npt.NDArray[np.float64]
CHUNK_BYTES = 1 << 28  # of materialised full gradients at once
HALF_EXPONENT = 14  # of the largest value of a gradient kept in float16, whose limit is 2^16


@dataclass(frozen=True)
class Gram:
    """Inner products of N examples' gradients.

    Attributes:
        matrix: (N, N) float64.
        losses: (N,) float64, each example's mean loss over its answer tokens.
    """

    matrix: Floats
    losses: Floats
    ids: tuple[str, ...]

    @property
    def cosines(self) -> Floats:
        """(N, N) float64 cosines; NaN in the row of an example whose gradient is zero."""
        norms = np.sqrt(np.diag(self.matrix))
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.matrix / np.outer(norms, norms)


class ProjectedGram:
    """Gathers grad B of each linear; a linear recorded for all N examples is contracted and freed.

    half: keep gradients meanwhile in two bytes a value, each scaled by a power of two into
    float16's range: an eighth of bfloat16's rounding error at the same size. Products are float32,
    their sum float64.
    """

    def __init__(self, n: int, *, half: bool):
        self.total = torch.zeros(n, n, dtype=torch.float64)
        self._store = torch.float16 if half else torch.float32
        self._kept: dict[str, _Kept] = {}

    def recorder(self, layout: Ragged) -> Callable[[Target, Tensor, Tensor], None]:
        """What takes the gradients of one micro-batch."""

        def record(target: Target, delta: Tensor, projected: Tensor) -> None:
            kept = self._reserve(target.name, delta.shape[1] * projected.shape[1], delta.device)
            delta, projected = delta.float(), projected.float()
            for member, (start, end) in zip(layout.members, layout.spans(), strict=True):
                kept.put(member, delta[start:end].T, projected[start:end])
            if not kept.missing:
                self.total += self._kept.pop(target.name).products().cpu()

        return record

    def _reserve(self, name: str, width: int, device: torch.device) -> _Kept:
        if name not in self._kept:
            n = len(self.total)
            rows = _reserved(n, width, self._store, device)
            self._kept[name] = _Kept(rows, torch.ones(n, device=device), n)
        return self._kept[name]


def _reserved(n: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(n, width) uninitialised; on the host from numpy, which asks for huge pages: a store of
    this size is slow to touch for the first time in small ones."""
    if device.type != "cpu":
        return torch.empty(n, width, dtype=dtype, device=device)
    return torch.from_numpy(np.empty((n, width), np.float16 if dtype == torch.float16 else "f4"))


@dataclass
class _Kept:
    """One linear's gradients. rows: (N, O R), row i multiplied by factors[i]."""

    rows: Tensor
    factors: Tensor
    missing: int

    def put(self, member: int, delta: Tensor, projected: Tensor) -> None:
        """Keep one example's gradient, (O, T) @ (T, R)."""
        row = self.rows[member].view(delta.shape[0], projected.shape[1])
        if self.rows.dtype == torch.float32:
            torch.mm(delta, projected, out=row)
        else:
            gradient = delta @ projected
            peak = gradient.abs().max()
            factor = torch.exp2(HALF_EXPONENT - peak.log2().floor())
            self.factors[member] = factor = torch.where(peak > 0, factor, 1.0)
            row.copy_(gradient * factor)
        self.missing -= 1

    def products(self) -> Tensor:
        """(N, N) float64 inner products."""
        flat = self.rows.float()
        factors = self.factors.double()
        return (flat @ flat.T).double() / torch.outer(factors, factors)


class FullGram:
    """Inner products of true weight gradients: sum_t delta_t x_t^T of each linear.

    A linear recorded for all N examples is contracted at once, by whichever is cheaper: building
    the N gradients, or the ghost form <G_i, G_j> = sum_tu (delta_it . delta_ju)(x_it . x_ju).
    """

    def __init__(self, n: int):
        self.total = torch.zeros(n, n, dtype=torch.float64)
        self._kept: dict[str, dict[int, tuple[Tensor, Tensor]]] = {}

    def recorder(self, layout: Ragged) -> Callable[[Target, Tensor, Tensor], None]:
        """What takes the gradients of one micro-batch."""

        def record(target: Target, delta: Tensor, inputs: Tensor) -> None:
            rows = self._kept.setdefault(target.name, {})
            for member, (start, end) in zip(layout.members, layout.spans(), strict=True):
                rows[member] = delta[start:end].float(), inputs[start:end].float()
            if len(rows) == len(self.total):
                found = self._kept.pop(target.name)
                pairs = [found[member] for member in range(len(self.total))]
                product = ghost(pairs) if ghost_is_cheaper(pairs) else materialised(pairs)
                self.total += product.cpu()

        return record


def ghost_is_cheaper(pairs: list[tuple[Tensor, Tensor]]) -> bool:
    """Whether N T^2 (D + O) < (2 T + N) D O, T being the mean number of rows."""
    n, t = len(pairs), sum(len(delta) for delta, _ in pairs) / len(pairs)
    o, d = pairs[0][0].shape[1], pairs[0][1].shape[1]
    return n * t * t * (d + o) < (2 * t + n) * d * o


def ghost(pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """(N, N) float64 inner products without building a gradient."""
    n = len(pairs)
    deltas, inputs = (torch.cat(side) for side in zip(*pairs, strict=True))
    sizes = torch.tensor([len(delta) for delta, _ in pairs], device=deltas.device)
    owner = torch.repeat_interleave(torch.arange(n, device=deltas.device), sizes)
    product = torch.zeros(n, n, dtype=torch.float64, device=deltas.device)
    for i, (delta, x) in enumerate(pairs):
        overlap = ((delta @ deltas.T) * (x @ inputs.T)).sum(0)
        product[i].index_add_(0, owner, overlap.double())
    return (product + product.T) / 2


def materialised(pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """(N, N) float64 inner products of the N gradients, built a few output features at a time."""
    n, o, d = len(pairs), pairs[0][0].shape[1], pairs[0][1].shape[1]
    product = torch.zeros(n, n, dtype=torch.float64, device=pairs[0][0].device)
    step = max(1, CHUNK_BYTES // (4 * n * d))
    for start in range(0, o, step):
        flat = torch.stack([(delta[:, start : start + step].T @ x).flatten() for delta, x in pairs])
        product += (flat @ flat.T).double()
    return product
