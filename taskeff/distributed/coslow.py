"""CoS-Low of many data sets as one Ray Data stream: CPU readers -> actors that hold the model.

Readers turn pools into shards, actors take the next shard whatever data set it is of, and the actor
that finds a pool complete draws its examples and takes their gradients: no barrier, one load of the
model. Rows on their way are bounded by the queue; the driver sees a few numbers per shard.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import lru_cache
from typing import Any

import ray
import ray.data
from ray.data import ActorPoolStrategy, ExecutionResources, TaskPoolStrategy
from ray.data.exceptions import UserCodeException  # pyright: ignore[reportPrivateImportUsage]
from ray.exceptions import GetTimeoutError, RayError

from taskeff.config import ClusterConfig, CosLowConfig, ModelConfig, ScoringConfig
from taskeff.coslow.data_set import DataSet, scored_pool, shards_to_score
from taskeff.coslow.engines import BuiltinEngine, EngineFactory, engine_of
from taskeff.coslow.pipeline import Outcome, Scored, Worker, state_of
from taskeff.coslow.result import conclude, encode, projection_of
from taskeff.distributed.monitor import describe_cluster
from taskeff.distributed.session import fixed_resources, quiet_data, ray_session
from taskeff.distributed.tiles import GramActors
from taskeff.errors import ClusterError, TaskeffError
from taskeff.memory import keep_loaded, return_memory
from taskeff.models import load_architecture, load_tokenizer

Row = dict[str, Any]
MEASURE = "measure"  # the status of a data set that still needs its gradients


def measure(
    data_sets: Sequence[DataSet],
    model: ModelConfig,
    settings: CosLowConfig,
    scoring: ScoringConfig,
    engine: EngineFactory = BuiltinEngine,
) -> Iterator[Scored | Outcome]:
    """Take every data set as far as it goes; one outcome is given of each, as soon as it is known.

    A shard or data set that fails for no fault of its rows is tried again by the next run.

    Raises:
        ClusterError: no actor can be placed, or the workers cannot go on.
    """
    tiled = settings.n_examples > scoring.tile_examples
    ended: dict[str, str] = {}
    broken: dict[str, str] = {}  # data set -> what the first of its failures was

    def settled(events: Iterator[Scored | Outcome]) -> Iterator[Scored | Outcome]:
        for event in events:
            if isinstance(event, Scored):
                yield event
            elif event.status == "failed":  # of a shard, maybe: another may still end its data set
                broken.setdefault(event.name, event.reason)
            elif ended.get(event.name, MEASURE) == MEASURE:
                ended[event.name] = event.status
                if event.status != MEASURE:
                    yield event

    with _bounded(scoring):
        yield from settled(
            _stream(data_sets, model, settings, scoring, engine, gradients=not tiled)
        )
        left = [one for one in data_sets if ended.get(one.name) == MEASURE]
        if left and not tiled:  # by an engine that holds no model of ours
            yield from settled(
                _stream(left, model, settings, scoring, BuiltinEngine, gradients=True)
            )
    with GramActors(model, scoring) as actors:
        for one in data_sets:
            status = ended.get(one.name)
            if status == MEASURE and tiled:
                yield _tiled(one, model, settings, actors)
            elif status in (None, MEASURE):
                why = broken.get(one.name, "not all its shards came back; run again")
                yield Outcome(one.name, "failed", why)


def _tiled(
    data: DataSet, model: ModelConfig, settings: CosLowConfig, actors: GramActors
) -> Outcome:
    """The gradients of a data set with many examples, as tiles of their Gram matrix."""
    found = state_of(data)
    if found.selection is None or found.examples is None:
        return found.outcome
    try:
        architecture, tokenizer = load_architecture(model), load_tokenizer(model)
        both = encode(found.selection, found.examples, architecture, tokenizer)
        grams = [
            actors.gram(
                rows,
                projection_of(settings),
                targets=settings.targets,
                memory=settings.gradient_memory,
            )
            for rows in both
            if rows
        ]
        conclude(data.folder, found.selection, found.examples, both[0], *grams)
    except TaskeffError as error:
        return Outcome(data.name, "failed", str(error))
    return Outcome(data.name, "measured")


@contextmanager
def _bounded(scoring: ScoringConfig) -> Iterator[None]:
    """Ray Data's settings of this stream; put back as they were."""
    _check_placeable(scoring)
    with quiet_data() as ours:
        # A block is one shard: a large pool then spreads over the actors, and waits in small
        # pieces.
        ours.target_max_block_size = 1
        # A node may be lost while its actor loads the model; a model that cannot load still ends
        # the run.
        ours.max_consecutive_actor_init_deaths = 3
        ours.wait_for_min_actors_s = math.ceil(60 * scoring.placement_timeout)
        ours.execution_options.resource_limits = ExecutionResources.for_limits(
            object_store_memory=scoring.queue_mb * 1e6
        )
        yield


def _check_placeable(scoring: ScoringConfig) -> None:
    """Refuse what a cluster that cannot grow will never place, rather than wait for it."""
    there = fixed_resources()
    if there is None:
        return
    asked = {
        "CPU": scoring.cpus_per_actor + scoring.cpus_per_reader,
        "GPU": scoring.gpus_per_actor or 0,
    }
    for kind, amount in asked.items():
        if amount > there.get(kind, 0):
            raise ClusterError(
                f"scoring asks for {amount:g} {kind}s for one actor and one reader, this cluster "
                f"has {there.get(kind, 0):g}; lower scoring.{kind.lower()}s_per_actor"
            )


def _stream(
    data_sets: Sequence[DataSet],
    model: ModelConfig,
    settings: CosLowConfig,
    scoring: ScoringConfig,
    engine: EngineFactory,
    *,
    gradients: bool,
) -> Iterator[Scored | Outcome]:
    fewest, most = scoring.actors
    rows = [{"data": pickle.dumps(one)} for one in data_sets]
    stream = (
        ray.data.from_items(rows, override_num_blocks=len(rows))
        .flat_map(
            _Reader(model),  # type: ignore[arg-type]
            compute=TaskPoolStrategy(size=scoring.readers),
            num_cpus=scoring.cpus_per_reader,
        )
        .flat_map(
            _Actor,  # type: ignore[arg-type]
            fn_constructor_args=(model, settings, scoring, engine, gradients),
            compute=ActorPoolStrategy(min_size=min(fewest, len(rows)), max_size=most),
            num_cpus=scoring.cpus_per_actor,
            num_gpus=scoring.gpus_per_actor or None,
        )
    )
    try:
        for row in stream.iter_rows():
            if row["rows"]:
                yield Scored(row["name"], int(row["rows"]))
            else:
                yield Outcome(row["name"], row["status"], row["reason"])
    except GetTimeoutError:
        gpus = f"{scoring.gpus_per_actor:g} GPU, " if scoring.gpus_per_actor else ""
        raise ClusterError(
            f"CoS-Low: no room within {scoring.placement_timeout:g} minutes "
            f"(scoring.placement_timeout) for {fewest} actors of {gpus}"
            f"{scoring.cpus_per_actor:g} CPU; the cluster has {describe_cluster()}: check the node "
            "types' maxima and quotas, or lower scoring.actors"
        ) from None
    except (RayError, UserCodeException) as error:
        lines = [line.strip() for line in str(error).splitlines() if "Error: " in line]
        reason = lines[-1].removeprefix("taskeff.errors.") if lines else _reason(error)
        raise ClusterError(
            f"the workers could not go on: {reason}; what they finished is kept: mend the cause "
            "and run the same command again"
        ) from error


class _Reader:
    """A data set -> its shards, then a row without one that says that they are all on their way."""

    def __init__(self, model: ModelConfig):
        self._model = model

    def __call__(self, row: Row) -> Iterator[Row]:
        data: DataSet = pickle.loads(row["data"])  # noqa: S301 - our own
        same = {"data": row["data"], "name": data.name}
        try:
            if scored_pool(data) is None:
                known = _tokenizer(self._model)  # pyright: ignore[reportArgumentType]
                for shard in shards_to_score(data, known):
                    yield {**same, "shard": pickle.dumps(shard), "error": ""}
            yield {**same, "shard": b"", "error": ""}
        except Exception as error:  # noqa: BLE001 - one source must not stop the others
            yield {**same, "shard": b"", "error": _reason(error)}


@lru_cache(maxsize=2)  # a frozen configuration is hashable, which its type does not say
def _tokenizer(model: Any) -> Any:
    return load_tokenizer(model)


class _Actor:
    """Holds an engine; scores a shard per call and finishes the data sets that are complete."""

    def __init__(
        self,
        model: ModelConfig,
        settings: CosLowConfig,
        scoring: ScoringConfig,
        engine: EngineFactory,
        gradients: bool,
    ):
        made = engine(model, settings, scoring)
        self._worker = Worker(made, load_tokenizer(model), gradients=gradients)
        keep_loaded()

    def __call__(self, row: Row) -> list[Row]:
        data: DataSet = pickle.loads(row["data"])  # noqa: S301 - our own
        if row["error"]:
            return [_ended(Outcome(data.name, "failed", row["error"]))]
        events: list[Row] = []
        try:
            if row["shard"]:
                shard = pickle.loads(row["shard"])  # noqa: S301 - our own
                self._worker.score(data, shard)
                events.append({**_ended(Outcome(data.name, "failed")), "rows": len(shard.indices)})
            found = self._worker.finish(data)
        except Exception as error:  # noqa: BLE001 - memory, storage: the next run tries again
            found = Outcome(data.name, "failed", _reason(error))
        return_memory()
        return [*events, *([_ended(found)] if found else [])]


def _ended(outcome: Outcome) -> Row:
    return {"name": outcome.name, "rows": 0, "status": outcome.status, "reason": outcome.reason}


def _reason(error: Exception) -> str:
    if isinstance(error, TaskeffError):
        return str(error)
    lines = [line for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *(line.strip() for line in lines[:1])])


class OnRay(AbstractContextManager["OnRay"]):
    """Takes data sets as far as they go; Ray is started when first needed.

    Args:
        engine: default: the one that the settings name.
        cluster: what training will ask of a local cluster; None where nothing is trained.

    Examples:
        >>> measures = taskeff.OnRay()  # and then taskeff.rank("rank.yaml", measures)
        >>> with measures:
        ...     pass  # nothing was measured, so Ray was not started
    """

    def __init__(self, engine: EngineFactory | None = None, cluster: ClusterConfig | None = None):
        self._engine, self._cluster = engine, cluster
        self._stack, self._connected = ExitStack(), False

    def __exit__(self, *ended: Any) -> None:
        self._stack.__exit__(*ended)

    def data_sets(
        self,
        data_sets: Sequence[DataSet],
        model: ModelConfig,
        settings: CosLowConfig,
        scoring: ScoringConfig,
    ) -> Iterator[Scored | Outcome]:
        """See `measure`."""
        self.connect()
        yield from measure(data_sets, model, settings, scoring, self._engine or engine_of(scoring))

    def mapped(
        self, function: Callable[..., Any], parts: Sequence[Sequence[Any]], **shared: Any
    ) -> list[Any]:
        """`function(part, **shared)` for every part over the cluster's CPUs, in order."""
        self.connect()
        task: Any = ray.remote(function)  # type: ignore[call-overload]
        references = {name: ray.put(value) for name, value in shared.items()}
        return ray.get([task.remote(part, **references) for part in parts])

    def connect(self) -> None:
        """Use the Ray that is running, else start a local one; once."""
        if not self._connected:
            self._stack.enter_context(ray_session(self._cluster))
            self._connected = True
