"""The three Ray Data streams of a ranking (confidence, selection, gradients), and its estimates.

All data sets go through one stream, so actors load the model once and take the next shard whatever
data set it is of. Rows on their way are bounded by the context's queue; the driver sees summaries.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import ray
import ray.data
from ray.data import ActorPoolStrategy, ExecutionResources, TaskPoolStrategy
from ray.data.exceptions import UserCodeException  # pyright: ignore[reportPrivateImportUsage]
from ray.exceptions import RayError

from taskeff.config import CosLowConfig, ModelConfig, RankConfig, ScoringConfig
from taskeff.coslow.candidates import Candidate, choose, measure
from taskeff.coslow.engines import EngineFactory, held_model
from taskeff.coslow.shards import Shard, publish_shard, read_shards
from taskeff.distributed.session import quiet_data
from taskeff.errors import ClusterError, TaskeffError
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.ranking import estimate_rows
from taskeff.memory import return_memory
from taskeff.tasks.prompts import Prompter
from taskeff.tasks.rows import PoolStream

ESTIMATES_PER_TASK = 32
EMPTY: dict[str, Any] = {
    "part": "",
    "last": False,
    "duplicates": 0,
    "rows": 0,
    "unscored": 0,
    "problems": [],
}
"""What a shard that is not published has to tell."""


@contextmanager
def bounded(scoring: ScoringConfig) -> Iterator[None]:
    """Ray Data's settings of this run; put back as they were."""
    with quiet_data() as ours:
        # A block is one shard: a large pool then spreads over the actors, and waits in small
        # pieces.
        ours.target_max_block_size = 1
        # A node may be lost while its actor loads the model; a model that cannot load still ends
        # the run.
        ours.max_consecutive_actor_init_deaths = 3
        ours.execution_options.resource_limits = ExecutionResources.for_limits(
            object_store_memory=scoring.queue_mb * 1e6
        )
        yield


def check_placeable(scoring: ScoringConfig) -> None:
    """Refuse what a cluster that cannot grow will never place, rather than wait for it.

    Raises:
        ClusterError: naming the setting, what it asks for and what there is.
    """
    if "RAY_ADDRESS" in os.environ:
        return  # it may have an autoscaler
    there = ray.cluster_resources()
    asked = {
        "CPU": scoring.cpus_per_actor + scoring.cpus_per_reader,
        "GPU": scoring.gpus_per_actor,
    }
    for kind, amount in asked.items():
        if amount > there.get(kind, 0):
            raise ClusterError(
                f"scoring asks for {amount:g} {kind}s for one actor and one reader, this cluster "
                f"has {there.get(kind, 0):g}; lower scoring.{kind.lower()}s_per_actor"
            )


def score_pools(
    candidates: Sequence[Candidate],
    config: RankConfig,
    settings: CosLowConfig,
    factory: EngineFactory,
) -> Iterator[dict[str, Any]]:
    """`publish_shard`'s answer for every shard of the candidates, as they come.

    A data set whose source cannot be read gives one record with `error`, a shard that cannot be
    scored likewise; the others go on.
    """
    scoring = config.scoring
    known = ray.put({one.name: one for one in candidates})
    read = partial(_read, model=config.model, settings=settings, rows=scoring.shard_rows)
    stream = _items(candidates).flat_map(
        _Known(read, known),  # type: ignore[arg-type]
        compute=TaskPoolStrategy(size=scoring.readers),
        num_cpus=scoring.cpus_per_reader,
    )
    if scoring.engine == "vllm":
        from taskeff.distributed.vllm import scored

        stream = scored(stream, config, settings, known)
    else:
        stream = stream.map(
            ConfidenceScorer,  # type: ignore[arg-type]
            fn_constructor_args=(config, settings, factory, known),
            **_actors(scoring),
        )
    yield from _records(stream)


def choose_examples(
    candidates: Sequence[Candidate], config: RankConfig, settings: CosLowConfig
) -> Iterator[dict[str, Any]]:
    """`choose` for every candidate, by tasks without a model."""
    known = ray.put({one.name: one for one in candidates})
    stream = _items(candidates).map(
        _Known(partial(_chosen, settings=settings), known),  # type: ignore[arg-type]
        compute=TaskPoolStrategy(size=config.scoring.readers),
        num_cpus=config.scoring.cpus_per_reader,
    )
    yield from _records(stream)


def measure_gradients(
    candidates: Sequence[Candidate], config: RankConfig, settings: CosLowConfig
) -> Iterator[dict[str, Any]]:
    """dataset, error for every candidate, its CoS-Low published unless there is an error."""
    known = ray.put({one.name: one for one in candidates})
    stream = _items(candidates).map(
        GradientScorer,  # type: ignore[arg-type]
        fn_constructor_args=(config, settings, known),
        **_actors(config.scoring),
    )
    yield from _records(stream)


def estimate(
    records: Sequence[Mapping[str, Any]],
    calibration: Calibration,
    *,
    targets: Sequence[float],
    fingerprint: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """`estimate_rows` over the cluster's CPUs: one estimate takes a tenth of a second."""
    task: Any = ray.remote(estimate_rows)  # type: ignore[call-overload]
    shared = ray.put(calibration)
    pending = [
        task.remote(
            records[start : start + ESTIMATES_PER_TASK],
            shared,
            targets=targets,
            fingerprint=fingerprint,
        )
        for start in range(0, len(records), ESTIMATES_PER_TASK)
    ]
    return [row for rows in ray.get(pending) for row in rows]


class _Known:
    """Calls a function with the candidate that a row names, fetched once per process."""

    def __init__(self, call: Callable[[Candidate], Any], known: ray.ObjectRef):
        self._call, self._known = call, known

    def __call__(self, row: dict[str, Any]) -> Any:
        return self._call(_fetched(self._known)[row["dataset"]])


@lru_cache(maxsize=2)
def _fetched(known: ray.ObjectRef) -> dict[str, Candidate]:
    return ray.get(known)


@lru_cache(maxsize=2)  # a frozen configuration is hashable, which its type does not say
def _tokenizer(model: Any) -> Any:
    from taskeff.models import load_tokenizer

    return load_tokenizer(model)


def _read(
    candidate: Candidate, model: ModelConfig, settings: CosLowConfig, rows: int
) -> Iterator[dict[str, Any]]:
    """The candidate's shards as rows of a stream."""
    spec = candidate.entry.spec
    try:
        shards = read_shards(
            PoolStream(spec, candidate.seed, settings.pool_cap, least=settings.n_examples),
            Prompter(_tokenizer(model), spec.description),  # pyright: ignore[reportArgumentType]
            rows_per_shard=rows,
            max_new_tokens=min(settings.max_new_tokens, spec.max_new_tokens),
        )
        for shard in shards:
            yield {**shard.to_record(), "error": ""}
    except Exception as error:  # noqa: BLE001 - one source must not stop the others
        yield {**Shard.nothing(candidate.name).to_record(), "error": _reason(error)}


def _chosen(candidate: Candidate, settings: CosLowConfig) -> dict[str, Any]:
    try:
        return choose(candidate, settings)
    except Exception as error:  # noqa: BLE001 - one data set must not stop the others
        return {"dataset": candidate.name, "status": "failed", "reason": _reason(error)}


class ConfidenceScorer:
    """An actor that holds an engine and scores one shard per call."""

    def __init__(
        self,
        config: RankConfig,
        settings: CosLowConfig,
        factory: EngineFactory,
        known: ray.ObjectRef,
    ):
        self.engine = factory(config, settings)
        self.known = _held(known)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        shard = Shard.from_record(row)
        found = {**EMPTY, "dataset": shard.dataset, "number": shard.number, "error": row["error"]}
        if row["error"]:
            return found
        try:
            return found | publish_shard(self.engine, shard, self.known[shard.dataset].folder)
        except Exception as error:  # noqa: BLE001 - whatever an engine raises is its shard's
            # Not a row's fault (memory, storage): nothing is published, the next run tries again.
            return {**found, "error": _reason(error)}


class GradientScorer:
    """An actor that holds the model and measures one labelled data set per call."""

    def __init__(self, config: RankConfig, settings: CosLowConfig, known: ray.ObjectRef):
        self.settings = settings
        self.known = _held(known)
        self.tokenizer = _tokenizer(config.model)  # pyright: ignore[reportArgumentType]
        self.model = held_model(config)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        candidate = self.known[row["dataset"]]
        try:
            measure(candidate, self.model, self.tokenizer, self.settings)
        except Exception as error:  # noqa: BLE001 - one data set must not stop the others
            return {"dataset": candidate.name, "error": _reason(error)}
        return_memory()
        return {"dataset": candidate.name, "error": ""}


def _held(known: Any) -> dict[str, Candidate]:
    # Ray Data may resolve a reference among constructor arguments before the actor sees it.
    return ray.get(known) if isinstance(known, ray.ObjectRef) else known


def _items(candidates: Sequence[Candidate]) -> ray.data.Dataset:
    rows = [{"dataset": one.name} for one in candidates]
    return ray.data.from_items(rows, override_num_blocks=len(rows))


def _records(stream: ray.data.Dataset) -> Iterator[dict[str, Any]]:
    """The stream's rows; what ends it early is one line of what was wrong."""
    try:
        for row in stream.iter_rows():
            yield {key: _plain(value) for key, value in row.items()}
    except (RayError, UserCodeException) as error:
        lines = [line.strip() for line in str(error).splitlines() if "Error: " in line]
        reason = lines[-1].removeprefix("taskeff.errors.") if lines else _reason(error)
        raise ClusterError(
            f"the workers could not go on: {reason}; what they finished is kept: mend the cause "
            "and run the same command again"
        ) from error


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _actors(scoring: ScoringConfig) -> Mapping[str, Any]:
    fewest, most = scoring.actors
    return {
        "compute": ActorPoolStrategy(min_size=fewest, max_size=most),
        "num_cpus": scoring.cpus_per_actor,
        "num_gpus": scoring.gpus_per_actor or None,
    }


def _reason(error: Exception) -> str:
    if isinstance(error, TaskeffError):
        return str(error)
    lines = [line for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *(line.strip() for line in lines[:1])])
