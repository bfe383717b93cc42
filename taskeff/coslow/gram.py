"""Recorded gradients -> inner products: the one place where examples meet.

Shapes: N, M examples, T rows, D in features, O out features, R LoRA rank.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from taskeff.coslow.linears import Record, Target
from taskeff.lm.ragged import Ragged

Floats = npt.NDArray[np.float64]
Kind = TypeVar("Kind", bound="Gradients")
CHUNK_BYTES = 1 << 28  # of true weight gradients built at once


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


class Tiles:
    """Adds up an (N, N) float64 matrix, symmetric to the last bit, from products of its parts."""

    def __init__(self, n: int):
        self._sum = np.zeros((n, n))

    def add(self, left: Sequence[int], right: Sequence[int], products: Floats) -> None:
        """Products of the examples `left` with the examples `right`, disjoint or the same."""
        self._sum[np.ix_(left, right)] += products
        if left != right:
            self._sum[np.ix_(right, left)] += products.T

    @property
    def matrix(self) -> Floats:
        """The sum; some BLAS sum <G_i, G_j> and <G_j, G_i> in different orders."""
        return (self._sum + self._sum.T) / 2


@dataclass
class Gradients(ABC):
    """One linear's gradients of N examples; pickled as arrays, which Ray hands on uncopied."""

    @classmethod
    @abstractmethod
    def reserve(cls, lengths: Sequence[int], delta: Tensor, inputs: Tensor) -> Gradients:
        """Room for examples of these many rows; `delta` and `inputs` as `put` will be given."""

    @abstractmethod
    def put(self, place: int, delta: Tensor, inputs: Tensor) -> None:
        """Keep one example's (T, O) output gradients and (T, R) A x, or (T, D) x."""

    @abstractmethod
    def products(self, other: Any) -> Floats:
        """(N, M) inner products with gradients of the same kind and linear: float32 products, to
        be summed over linears in float64."""

    def to(self: Kind, device: torch.device) -> Kind:
        """The same on `device`."""
        return type(self)(*(getattr(self, f.name).to(device) for f in fields(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value.numpy(force=True) for name, value in vars(self).items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # shared memory is read-only, and nothing writes here
            vars(self).update({name: torch.from_numpy(value) for name, value in state.items()})


@dataclass
class Projected(Gradients):
    """Gradients of LoRA's B. rows: (N, O R) float32."""

    rows: Tensor

    @classmethod
    def reserve(cls, lengths: Sequence[int], delta: Tensor, inputs: Tensor) -> Projected:
        size = (len(lengths), delta.shape[1] * inputs.shape[1])
        return cls(_reserved(size, delta.device))

    def put(self, place: int, delta: Tensor, inputs: Tensor) -> None:
        row = self.rows[place].view(delta.shape[1], inputs.shape[1])
        torch.mm(delta.float().T, inputs.float(), out=row)

    def products(self, other: Projected) -> Floats:
        return (self.rows @ other.rows.T).double().cpu().numpy()


@dataclass
class Full(Gradients):
    """True weight gradients sum_t delta_t x_t^T, kept as their factors.

    deltas: (all rows, O) float32. inputs: (all rows, D) float32. ends: (N + 1,) int64, where each
    example's rows end, from 0.
    """

    deltas: Tensor
    inputs: Tensor
    ends: Tensor

    @classmethod
    def reserve(cls, lengths: Sequence[int], delta: Tensor, inputs: Tensor) -> Full:
        n = sum(lengths)
        deltas = _reserved((n, delta.shape[1]), delta.device)
        inputs = _reserved((n, inputs.shape[1]), delta.device)
        return cls(deltas, inputs, torch.tensor([0, *accumulate(lengths)]))

    def put(self, place: int, delta: Tensor, inputs: Tensor) -> None:
        start, end = self.ends[place : place + 2].tolist()
        self.deltas[start:end], self.inputs[start:end] = delta, inputs

    def products(self, other: Full) -> Floats:
        # The gradients are built a few output features at a time.
        n, m = len(self.ends) - 1, len(other.ends) - 1
        product = torch.zeros(n, m, dtype=torch.float64, device=self.deltas.device)
        step = max(1, CHUNK_BYTES // (4 * (n + m) * self.inputs.shape[1]))
        for start in range(0, self.deltas.shape[1], step):
            ours = self._built(slice(start, start + step))
            theirs = ours if other is self else other._built(slice(start, start + step))
            product += (ours @ theirs.T).double()
        return product.cpu().numpy()

    def _built(self, features: slice) -> Tensor:
        sizes = self.ends.diff().tolist()
        parts = zip(self.deltas[:, features].split(sizes), self.inputs.split(sizes), strict=True)
        return torch.stack([(delta.T @ x).flatten() for delta, x in parts])


class Gathering:
    """Gathers each linear's gradients of some examples, and hands on those that are complete.

    Args:
        members: the examples' numbers in the whole set. lengths: their rows.
        full: true weight gradients, no projection.
        done: called with a linear's name and its gradients, in the order of `members`.
        loss_scale: what the losses were multiplied by; divided out again.
    """

    def __init__(
        self,
        members: Sequence[int],
        lengths: Sequence[int],
        full: bool,
        done: Callable[[str, Gradients], None],
        loss_scale: float = 1.0,
    ):
        self._places = {member: place for place, member in enumerate(members)}
        self._lengths, self._done, self._loss_scale = lengths, done, loss_scale
        self._kind: type[Gradients] = Full if full else Projected
        self._open: dict[str, tuple[Gradients, set[int]]] = {}

    def recorder(self, layout: Ragged) -> Record:
        """What takes the gradients of one micro-batch."""

        def record(target: Target, delta: Tensor, inputs: Tensor) -> None:
            if target.name not in self._open:
                reserved = self._kind.reserve(self._lengths, delta, inputs)
                self._open[target.name] = reserved, set(self._places.values())
            if self._loss_scale != 1:
                delta = delta.float() / self._loss_scale
            kept, missing = self._open[target.name]
            for member, (start, end) in zip(layout.members, layout.spans(), strict=True):
                kept.put(self._places[member], delta[start:end], inputs[start:end])
                missing.discard(self._places[member])
            if not missing:
                self._done(target.name, self._open.pop(target.name)[0])

        return record


def _reserved(size: tuple[int, int], device: torch.device) -> Tensor:
    """Uninitialised float32; on the host from numpy, which asks for huge pages: a store of this
    size is slow to touch for the first time in small ones."""
    if device.type != "cpu":
        return torch.empty(size, device=device)
    return torch.from_numpy(np.empty(size, np.float32))
