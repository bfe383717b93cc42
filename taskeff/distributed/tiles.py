"""One Gram matrix as tiles over several actors, exact: for more examples than one actor holds.

The micro-batches of one plan are dealt out, so every gradient is the one that a single actor would
compute. Group by group of decoder blocks, gradients go through the object store to the peers that
multiply them with their own; the driver adds up products. Nobody holds all gradients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from taskeff.config import ModelConfig, ScoringConfig
from taskeff.coslow.engines import held_model
from taskeff.coslow.gradients import MAX_TOKENS, Example, Part, Plan
from taskeff.coslow.gram import Floats, Gradients, Gram, Tiles
from taskeff.coslow.linears import LoRA
from taskeff.distributed.session import fixed_resources
from taskeff.distributed.trainer import reason
from taskeff.errors import ClusterError, TaskeffError
from taskeff.memory import free_bytes, return_memory
from taskeff.models import load_architecture

RESTARTS = 3  # of an actor, and tries of what it was doing
JOIN_SECONDS = 60  # for the others, once the fewest actors are there
Job = tuple[int, tuple[int, ...]]  # number of the matrix, and the part's micro-batches


class GramActors:
    """As many actors with the model as `scoring` allows and the cluster has room for, for one
    matrix after the other; they start with the first. A context manager.

    Works in a driver and inside a Ray task or actor, whose own CPUs are not lent.
    """

    def __init__(self, model: ModelConfig, scoring: ScoringConfig):
        self._model, self._scoring = model, scoring
        self._actors: list[Any] = []
        self._made = 0

    def __enter__(self) -> GramActors:
        return self

    def __exit__(self, *failure: object) -> None:
        self._stop()

    def gram(
        self,
        examples: Sequence[Example],
        projection: LoRA | None,
        *,
        targets: Sequence[str] | None = None,
        memory: int | None = None,
        max_tokens: int | None = None,
        groups: int | None = None,
    ) -> Gram:
        """See `gradient_gram`. An actor that dies starts again and computes its part anew.

        Args:
            memory: bytes that an actor's own gradients and activations may take; None: its share
                of what is free.

        Raises:
            ClusterError: no room for the fewest actors, or they keep dying.
            TaskeffError: see `gradient_gram`.
        """
        device = "cuda" if self._scoring.gpus_per_actor else "cpu"
        plan = Plan.make(
            load_architecture(self._model),
            examples,
            projection,
            targets=targets,
            max_tokens=max_tokens or MAX_TOKENS[device],
        )
        try:
            self._actors = self._actors or self._start()
            return self._gram(plan, memory, groups)
        except BaseException:
            self._stop()  # the next matrix finds whole actors
            raise

    def _gram(self, plan: Plan, memory: int | None, groups: int | None) -> Gram:
        shares = deal([plan.rows(batch) for batch in range(len(plan.batches))], len(self._actors))
        members = [plan.members(share) for share in shares]
        self._made += 1
        known = ray.put(plan)
        parts = [(actor, (self._made, share)) for actor, share in zip(self._actors, shares)]
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
            sharing = Counter(place for place, _ in rooms)
            memory = min(free // sharing[place] for place, free in rooms)
        return max(_answers([actor.groups.remote(plan, job, memory) for actor, job in parts]))

    def _start(self) -> list[Any]:
        scoring = self._scoring
        asked = {"CPU": scoring.cpus_per_actor, "GPU": scoring.gpus_per_actor or 0.0}
        fewest, most = scoring.actors
        if (there := fixed_resources()) is not None:
            room = min(there.get(kind, 0) // each for kind, each in asked.items() if each)
            most = min(most, max(fewest, int(room)))
            if room < fewest:
                raise ClusterError(_no_room(fewest, asked))
        worker: Any = ray.remote(_Worker)  # type: ignore[call-overload]
        options = worker.options(
            num_cpus=asked["CPU"],
            num_gpus=asked["GPU"],
            max_restarts=RESTARTS,
            max_task_retries=RESTARTS,
            # What is computed again after a loss must not wait behind what waits for it.
            allow_out_of_order_execution=True,
        )
        # Arguments small enough to go by value: an actor that restarts finds them again.
        placed = {}
        for _ in range(most):
            actor = options.remote(self._model, scoring)
            placed[actor.placed.remote()] = actor
        self._actors = list(placed.values())  # to be stopped, whatever comes
        ready, _ = ray.wait(
            list(placed), num_returns=fewest, timeout=60 * scoring.placement_timeout
        )
        if len(ready) < fewest:
            raise ClusterError(_no_room(fewest, asked))
        ready, late = ray.wait(list(placed), num_returns=most, timeout=JOIN_SECONDS)
        for one in late:
            ray.kill(placed[one])
        return [placed[one] for one in ready]

    def _stop(self) -> None:
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []


class _Worker:
    """An actor: the model, and where it is in its part of a plan."""

    def __init__(self, model: ModelConfig, scoring: ScoringConfig):
        self._config, self._scoring = model, scoring
        self._loaded: Any = None
        self._next: Any = None  # the job, and the group that its sweep comes to next
        self._sweep: Any = iter(())
        self._found: dict[str, Gradients] = {}

    def placed(self) -> None:
        """Answered once there is room for this actor."""

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
            self._loaded = held_model(self._config, self._scoring)
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


def _no_room(actors: int, asked: dict[str, float]) -> str:
    each = " and ".join(f"{amount:g} {kind}s" for kind, amount in asked.items() if amount)
    return (
        f"gradients ask for {actors} actors with {each} each, and there is no room for them; lower "
        "the first of scoring.actors, or what an actor asks for"
    )


def _answers(refs: Sequence[Any]) -> list[Any]:
    try:
        return ray.get(list(refs))
    except RayTaskError as error:
        if isinstance(error.cause, TaskeffError):
            raise error.cause from None
        why = reason(error)
    except RayActorError:
        why = f"an actor died more than {RESTARTS} times; allow less coslow.gradient_memory_gb"
    except RayError as error:
        why = reason(error)
    raise ClusterError(f"the tiles of a Gram matrix could not be computed: {why}")
