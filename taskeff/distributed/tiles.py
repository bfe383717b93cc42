"""The Gram matrix of many gradients, over actors that each hold the model and a part of them.

Every actor computes some micro-batches of one plan, a group of decoder blocks at a time; a group's
gradients go through the object store to the actors that multiply them with their own; the driver
adds up products. Nobody holds all gradients, and the matrix is that of one process.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError

from taskeff.config import ModelConfig
from taskeff.coslow.gradients import (
    MAX_TOKENS,
    Example,
    Gram,
    LoRA,
    Part,
    Plan,
    free_bytes,
)
from taskeff.coslow.gram import Floats, Gradients, Tiles
from taskeff.distributed.session import ray_session
from taskeff.errors import ClusterError, TaskeffError
from taskeff.memory import return_memory
from taskeff.models import load_architecture, load_model

Job = tuple[int, tuple[int, ...]]  # number of the matrix, and the part's micro-batches
RESTARTS = 3  # of an actor, and tries of what it was doing


def tiled_gram(
    model: ModelConfig,
    examples: Sequence[Example],
    *,
    projection: LoRA | None = LoRA(),  # noqa: B008 - frozen
    targets: Sequence[str] | None = None,
    memory: int | None = None,
    actors: int = 2,
    cpus: float = 1.0,
    gpus: float = 0.0,
    threads: int = 1,
) -> Gram:
    """`gradient_gram` by actors that are started for it; see there and `GramActors`."""
    with GramActors(model, actors=actors, cpus=cpus, gpus=gpus, threads=threads) as pool:
        return pool.gram(examples, projection, targets=targets, memory=memory)


class GramActors:
    """Actors that hold the model, for one Gram matrix after the other; a context manager.

    Works in the driver and inside a Ray task or actor, whose own CPUs it does not use.

    Args:
        cpus, gpus, threads: of each actor.

    Raises:
        ClusterError: this machine cannot place so many.
    """

    def __init__(
        self,
        model: ModelConfig,
        *,
        actors: int = 2,
        cpus: float = 1.0,
        gpus: float = 0.0,
        threads: int = 1,
    ):
        self._model, self._n, self._gpus = model, actors, gpus
        self._asked = {"CPU": cpus, "GPU": gpus}
        self._threads = threads
        self._session = ray_session()
        self._serial = count()

    def __enter__(self) -> GramActors:
        self._session.__enter__()
        try:
            _check_placeable(self._n, self._asked)
            actor: Any = ray.remote(_Worker)  # type: ignore[call-overload]
            options = actor.options(
                num_cpus=self._asked["CPU"],
                num_gpus=self._gpus,
                max_restarts=RESTARTS,
                max_task_retries=RESTARTS,
                # What is computed again after a loss must not wait behind what waits for it.
                allow_out_of_order_execution=True,
            )
            # Small arguments, given by value: a restarted actor finds them again.
            self._actors = [
                options.remote(self._model, self._threads, bool(self._gpus)) for _ in range(self._n)
            ]
        except BaseException as error:
            self._session.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(self, *failure: Any) -> None:
        for one in self._actors:
            ray.kill(one)
        self._session.__exit__(*failure)

    def gram(
        self,
        examples: Sequence[Example],
        projection: LoRA | None = LoRA(),  # noqa: B008 - frozen
        *,
        targets: Sequence[str] | None = None,
        memory: int | None = None,
        max_tokens: int | None = None,
        groups: int | None = None,
    ) -> Gram:
        """See `gradient_gram`; `memory` is that of each actor.

        Raises:
            DataError, ModelError: as `gradient_gram`.
            ClusterError: actors keep dying, or fail.
        """
        most = max_tokens or MAX_TOKENS["cuda" if self._gpus else "cpu"]
        plan = Plan.make(
            load_architecture(self._model), examples, projection, targets=targets, max_tokens=most
        )
        shares = deal([plan.rows(batch) for batch in range(len(plan.batches))], self._n)
        members = [plan.members(share) for share in shares]
        serial, known = next(self._serial), ray.put(plan)
        parts = [(actor, (serial, share)) for actor, share in zip(self._actors, shares)]
        groups = groups or self._groups(known, parts, memory)
        tiles, losses = Tiles(len(plan.examples)), np.full(len(plan.examples), np.nan)
        for number in reversed(range(groups)):
            made = [
                actor.gradients.options(num_returns=2).remote(known, job, groups, number)
                for actor, job in parts
            ]
            pairs = list(pairs_of(len(parts)))
            asked = [
                parts[i][0].tile.remote(made[i][1], made[j][1] if i != j else None)
                for i, j in pairs
            ]
            for (i, j), products in zip(pairs, _answers(asked), strict=True):
                tiles.add(members[i], members[j], products)
            for own, found in zip(members, _answers([one[0] for one in made]), strict=True):
                losses[own] = found
        return plan.gram(tiles, losses)

    def _groups(self, plan: ray.ObjectRef, parts: Sequence[Any], memory: int | None) -> int:
        if memory is None:
            rooms = _answers([actor.room.remote() for actor, _ in parts])
            shared = Counter(place for place, _ in rooms)
            memory = min(free // shared[place] for place, free in rooms)
        return max(_answers([actor.groups.remote(plan, job, memory) for actor, job in parts]))


class _Worker:
    """An actor: the model, and where it is in its part of a plan."""

    def __init__(self, model: ModelConfig, threads: int, on_gpu: bool):
        self._config, self._threads, self._on_gpu = model, threads, on_gpu
        self._loaded: Any = None
        self._next: Any = None  # the job, and the group that the sweep comes to next
        self._sweep: Any = iter(())
        self._found: dict[str, Gradients] = {}

    def room(self) -> tuple[str, int]:
        """Which memory this actor works in, and how many bytes of it are free."""
        node = ray.get_runtime_context().get_node_id()
        return f"{node} {ray.get_gpu_ids()}", free_bytes(self._model().device)

    def groups(self, plan: Plan, job: Job, memory: int) -> int:
        """See `Part.groups`."""
        return Part(self._model(), plan, job[1]).groups(memory)

    def gradients(
        self, plan: Plan, job: Job, groups: int, number: int
    ) -> tuple[Floats, dict[str, Gradients]]:
        """Losses of the part's examples, and the gradients of one group of blocks by linear.

        Groups are asked for from the last to the first; an actor that starts in between computes
        those above again.
        """
        if self._next != (job, number):
            self._part = Part(self._model(), plan, job[1])
            self._found = {}
            self._sweep = self._part.sweep(groups, self._found.__setitem__)
        for at in self._sweep:
            found = dict(self._found)
            self._found.clear()
            if at == number:
                break
        else:
            raise ValueError(f"there is no group {number} of {groups}")
        self._next = job, number - 1
        if number == 0:
            self._sweep.close()
            return_memory()
        return self._part.losses[self._part.members], found

    def tile(self, left: dict[str, Gradients], right: dict[str, Gradients] | None) -> Floats:
        """Products of two parts' gradients, summed over linears; None: of a part with itself."""
        device, total = self._model().device, 0.0
        for name, ours in left.items():
            ours = ours.to(device)
            total = total + ours.products(ours if right is None else right[name].to(device))
        return np.asarray(total)

    def _model(self) -> Any:
        # Not in the constructor, whose errors Ray words itself.
        if self._loaded is None:
            import torch

            torch.set_num_threads(self._threads)
            self._loaded = load_model(self._config, None if self._on_gpu else "cpu")
        return self._loaded


def deal(sizes: Sequence[int], hands: int) -> list[tuple[int, ...]]:
    """Numbers of the items that each hand gets: the largest first, to whoever has least."""
    dealt: list[list[int]] = [[] for _ in range(min(hands, len(sizes)))]
    for item in sorted(range(len(sizes)), key=lambda item: -sizes[item]):
        min(dealt, key=lambda hand: sum(sizes[i] for i in hand)).append(item)
    return [tuple(sorted(hand)) for hand in dealt]


def pairs_of(n: int) -> Iterator[tuple[int, int]]:
    """Every pair of n parts and each with itself, the first of a pair being who multiplies: as
    many for one as for the other."""
    for step in range(n // 2 + 1):
        for i in range(n if 2 * step < n or not step else n // 2):
            yield i, (i + step) % n


def _check_placeable(actors: int, asked: dict[str, float]) -> None:
    if "RAY_ADDRESS" in os.environ:
        return  # it may have an autoscaler
    there = ray.cluster_resources()
    for kind, amount in asked.items():
        if actors * amount > there.get(kind, 0):
            raise ClusterError(
                f"gradients ask for {actors} actors of {amount:g} {kind}s, this cluster has "
                f"{there.get(kind, 0):g}; ask for fewer actors or less for each"
            )


def _answers(refs: Sequence[Any]) -> list[Any]:
    try:
        return ray.get(list(refs))
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, TaskeffError):
            raise cause from None
        lines = str(cause).strip().splitlines()
        reason = ": ".join([type(cause).__name__, *lines[:1]])
    except RayError as error:
        reason = f"an actor died more than {RESTARTS} times ({type(error).__name__})"
    raise ClusterError(
        f"gradients could not be taken: {reason}; if memory ran out, allow less of it "
        "(coslow.gradient_memory_gb) or more actors"
    )
