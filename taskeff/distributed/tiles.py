"""One Gram matrix as tiles over several actors, exact: for more examples than one actor holds.

The micro-batches of one plan are dealt out, so every gradient is the one that a single actor would
compute. Group by group of decoder blocks, gradients travel to the peers that need them and are let
go; the driver adds up tiles of the matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError

from taskeff.config import ModelConfig, ScoringConfig
from taskeff.coslow.engines import held_model
from taskeff.coslow.gradients import MAX_TOKENS, Part, Plan
from taskeff.coslow.gram import Gradients, Gram, Tiles
from taskeff.coslow.linears import LoRA
from taskeff.distributed.trainer import reason
from taskeff.errors import ClusterError
from taskeff.models import load_architecture
from taskeff.tasks.prompts import TokenizedExample

RESTARTS = 2


def tiled_gram(
    model: ModelConfig,
    examples: Sequence[TokenizedExample],
    projection: LoRA | None,
    scoring: ScoringConfig,
    *,
    targets: Sequence[str] | None = None,
    memory: int | None = None,
) -> Gram:
    """`gradient_gram` over as many actors as `scoring` allows.

    An actor that dies starts again and computes its share anew, some times over.

    Args:
        memory: bytes that an actor's own gradients and activations may take; None: what is free.

    Raises:
        ClusterError: the actors cannot go on.
        TaskeffError: see `gradient_gram`.
    """
    device = "cuda" if scoring.gpus_per_actor else "cpu"
    plan = Plan.make(
        load_architecture(model),
        examples,
        projection,
        targets=targets,
        max_tokens=MAX_TOKENS[device],
    )
    shares = _dealt(plan, scoring.actors[1])
    holder: Any = ray.remote(_Holder).options(
        num_cpus=scoring.cpus_per_actor,
        num_gpus=scoring.gpus_per_actor or 0,
        max_restarts=RESTARTS,
        max_task_retries=RESTARTS,
    )
    known = ray.put(plan)
    actors = [holder.remote(model, scoring) for _ in shares]
    try:
        groups = max(
            ray.get([a.groups.remote(known, s, memory) for a, s in zip(actors, shares)]), default=1
        )
        tiles, losses = Tiles(len(plan.examples)), np.full(len(plan.examples), np.nan)
        for group in range(groups):
            made = [
                a.gradients.options(num_returns=2).remote(known, share, groups, group)
                for a, share in zip(actors, shares, strict=True)
            ]
            asked = [
                (i, j, actors[i].products.remote(known, shares[i], groups, group, made[j][0]))
                for i, j in _pairs(len(shares))
            ]
            for i, j, products in asked:
                left, right = plan.members(shares[i]), plan.members(shares[j])
                tiles.add(left, right, ray.get(products))
            for _, found in made:
                values = ray.get(found)
                losses = np.where(np.isnan(losses), values, losses)
        return plan.gram(tiles, losses)
    except RayError as error:
        raise ClusterError(
            f"the tiles of a Gram matrix could not be computed: {reason(error)}"
        ) from error
    finally:
        for actor in actors:
            ray.kill(actor)


def _dealt(plan: Plan, actors: int) -> list[list[int]]:
    """Micro-batches for each actor, so that all have about the same number of rows."""
    order = sorted(range(len(plan.batches)), key=lambda batch: -plan.rows(batch))
    shares: list[list[int]] = [[] for _ in range(min(actors, len(order)))]
    for batch in order:
        min(shares, key=lambda share: sum(map(plan.rows, share))).append(batch)
    return [sorted(share) for share in shares]


def _pairs(n: int) -> Iterator[tuple[int, int]]:
    """Every pair of shares once, a share with itself too, dealt evenly to the first of each."""
    for i in range(n):
        for step in range(n // 2 + 1):
            if not (step and 2 * step == n and i >= n // 2):
                yield i, (i + step) % n


class _Holder:
    """Holds the model, and of its share the gradients of one group of blocks at a time.

    What a call needs is computed where it is not there: after a restart, or for the next group.
    """

    def __init__(self, model: ModelConfig, scoring: ScoringConfig):
        self._model = held_model(model, scoring)
        self._at: tuple[Any, ...] | None = None
        self._found: dict[str, Gradients] = {}

    def groups(self, plan: Plan, share: Sequence[int], memory: int | None) -> int:
        """Groups of blocks that `memory` asks for."""
        return Part(self._model, plan, share).groups(memory)

    def gradients(
        self, plan: Plan, share: Sequence[int], groups: int, group: int
    ) -> tuple[dict[str, Gradients], np.ndarray]:
        """The group's linears with their gradients, and the losses, of the share's examples."""
        self._sweep_to(plan, share, groups, group)
        return self._found, self._part.losses

    def products(
        self,
        plan: Plan,
        share: Sequence[int],
        groups: int,
        group: int,
        others: dict[str, Gradients],
    ) -> np.ndarray:
        """Inner products of the share's examples with others', summed over the group's linears."""
        self._sweep_to(plan, share, groups, group)
        found = [
            gradients.products(others[name].to(self._model.device))
            for name, gradients in self._found.items()
        ]
        return self._part.factor * np.sum(found, axis=0)

    def _sweep_to(self, plan: Plan, share: Sequence[int], groups: int, group: int) -> None:
        key = (tuple(share), groups)
        if self._at is None or self._at[:2] != key or self._at[2] > group:
            self._part = Part(self._model, plan, share)
            self._found = {}
            self._sweep = self._part.sweep(groups, self._found.__setitem__)
            self._at = (*key, -1)
        while self._at[2] < group:
            self._found.clear()
            next(self._sweep)
            self._at = (*key, self._at[2] + 1)
