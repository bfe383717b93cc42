"""What a run will take: seconds per cell, GPU-hours, money, storage, room. Nothing is started.

Durations come from the run's measured cells where there are any; else from 6 x parameters x tokens
floating-point operations for training and 2 x parameters x tokens for reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from taskeff.config import ClusterConfig, RunConfig
from taskeff.finetune.cells import Cell, by_task_and_seed
from taskeff.models import load_architecture
from taskeff.models import parameter_count as count
from taskeff.run.placement import Demand, demand, head_memory, jobs_at_once, lanes_of
from taskeff.run.plan import Plan
from taskeff.run.schedule import Schedule, make_schedule
from taskeff.tasks.task import Task

CHARACTERS_PER_TOKEN = 4.0
SAMPLE = 50
GPU_TFLOPS, THREAD_TFLOPS = 300.0, 0.05
PREDICTION_BYTES = 48.0
"""Of one test row in a cell's predictions beside its texts, before Parquet's compression."""
RESULT_BYTES = 4096.0


class Work(NamedTuple):
    """Floating-point operations of one cell, or one CoS-Low, per parameter of the model."""

    training: float
    """Forward and backward."""
    reading: float
    """Forward only, or generated."""

    @classmethod
    def of_tokens(cls, trained: float, read: float) -> Work:
        """That of so many tokens."""
        return cls(6 * trained, 2 * read)


@dataclass(frozen=True)
class Forecast:
    """What is left of a run's cells; CoS-Low is not in it.

    Attributes:
        seconds: cell -> what it is expected to take, and where that comes from, in words.
        hours: GPU-hours, or worker-hours where there is no GPU.
    """

    cells: int
    done: int
    seconds: Mapping[Cell, float]
    source: str
    schedule: Schedule
    lanes: int
    hours: float
    money: float | None
    storage_bytes: float
    need: Demand


def forecast(plan: Plan, results: Mapping[Cell, Mapping[str, Any]]) -> Forecast:
    """What the rest of the run will take after `results`.

    Raises:
        ClusterError: the cluster's node types can never hold one job.
        ModelError: the model's configuration cannot be read.
    """
    config = plan.config
    parameters = parameter_count(config)
    need = needed(config)
    lanes = lanes_of(config.cluster, need)
    pending = [cell for cell in plan.cells if cell not in results]
    seconds, source = expected(plan, pending, results, parameters)
    schedule = make_schedule(seconds, lanes, per_job=config.cluster.task_seeds_per_job)
    cluster = config.cluster
    hours = schedule.busy / 3600 * cluster.workers_per_job * (cluster.gpus_per_worker or 1)
    price = cluster.price_per_gpu_hour if cluster.gpus_per_worker else None
    return Forecast(
        cells=len(plan.cells),
        done=len(results),
        seconds=seconds,
        source=source,
        schedule=schedule,
        lanes=lanes,
        hours=hours,
        money=None if price is None else price * hours,
        storage_bytes=sum(_stored(plan.tasks[cell.task], config) for cell in pending),
        need=need,
    )


def lines(config: RunConfig, found: Forecast, *, placement: bool = True) -> list[str]:
    """The forecast in words, a line per task and seed with pending cells.

    Args:
        placement: say too what a job needs and how many run side by side.
    """
    out = [f"{found.cells} cells: {found.done} done, {len(found.seconds)} to measure"]
    for left in by_task_and_seed(found.seconds):
        seconds = sum(found.seconds[cell] for cell in left.cells)
        budgets = ", ".join(map(str, left.budgets))
        out.append(f"  {left.task:<28} seed {left.seed}  budgets {budgets}  about {_time(seconds)}")
    if not found.seconds:
        return out
    cluster = config.cluster
    jobs = len(found.schedule.jobs)
    unit = "GPU-hours" if cluster.gpus_per_worker else "worker-hours"
    out.append(
        f"time: cells about {_time(found.schedule.makespan)} ({jobs} jobs, {found.lanes} at a "
        f"time), {found.hours:.3g} {unit}; from {found.source}"
    )
    if found.money is not None:
        price = f"{cluster.price_per_gpu_hour:g} per GPU-hour"
        out.append(f"money: about {found.money:.2f} at {price}")
    out.append(f"storage: about {found.storage_bytes / 1e6:.3g} MB")
    if placement:
        room = "cluster.node_types are not given, so not checked"
        if cluster.node_types:
            room = f"the node types hold {jobs_at_once(cluster, found.need)} at once"
        out += [
            f"placement: a job needs {found.need}; {room}",
            f"lanes: {found.lanes}; the head needs about {head_memory(found.lanes):.0f} GB of "
            "memory" + ("" if cluster.head_memory_gb else ", cluster.head_memory_gb is not given"),
        ]
    return out


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def needed(config: RunConfig) -> Demand:
    """What the workers of a job need, memory included.

    Raises:
        ClusterError: a stage takes more memory than the node types have.
        ModelError: the model's configuration cannot be read.
    """
    from taskeff.run.room import checked

    return demand(config, checked(config, load_architecture(config.model)))


def check_placement(config: RunConfig) -> int:
    """Jobs that can run side by side; memory counts only where node types state theirs.

    Raises:
        ClusterError: the node types can never hold one job.
    """
    stated = any(kind.gpu_memory_gb or kind.memory_gb for kind in config.cluster.node_types)
    return lanes_of(config.cluster, needed(config) if stated else demand(config, None))


def parameter_count(config: RunConfig) -> float:
    """Parameters of the run's model, from its config.json; no weight is read.

    Raises:
        ModelError: the configuration is missing, unreachable or of an unknown architecture.
    """
    return float(count(load_architecture(config.model)))


def expected(
    plan: Plan,
    wanted: Iterable[Cell | str],
    results: Mapping[Cell, Mapping[str, Any]],
    parameters: float,
) -> tuple[dict[Any, float], str]:
    """Seconds that each of `wanted` will take, cells or tasks for their CoS-Lows, and in words
    where that comes from.

    Args:
        results: what is measured already; its pace holds for the rest.
        parameters: of the model.
    """
    training, reading = _paces(plan, results, parameters)
    works = {of: work_of(plan, of) for of in wanted}
    seconds = {of: w.training * training + w.reading * reading for of, w in works.items()}
    if results:
        return seconds, f"the pace of {len(results)} measured cells"
    per_worker = _tflops(plan.config.cluster)
    return seconds, f"6ND at {per_worker:g} TFLOP/s per worker; nothing is measured yet"


def cheap_first(plan: Plan, cells: Iterable[Cell]) -> list[Cell]:
    """Seed by seed, cheap cells first: an interrupted run so has whole curves of some seeds.

    The order does not depend on what is measured already.
    """
    return sorted(cells, key=lambda cell: (cell.seed, sum(work_of(plan, cell)), cell))


def work_of(plan: Plan, of: Cell | str) -> Work:
    """What a cell takes, early stopping not happening; or a task's CoS-Low."""
    from taskeff.finetune.loop import schedule

    config = plan.config
    if isinstance(of, str):
        task, settings = plan.tasks[of], config.coslow
        most, row, prefix = settings.max_tokens_per_pack, *_lengths(task)
        pool = min(len(task.train), settings.pool_cap or len(task.train))
        # The pool is read once; two sets of examples, the chosen and the random, go both ways.
        read = _packed(pool, row, prefix, most)
        read += pool * min(settings.max_new_tokens, task.spec.max_new_tokens)
        return Work.of_tokens(2 * _packed(settings.n_examples, row, prefix, most), read)
    task, training = plan.tasks[of.task], config.training
    row, prefix = _lengths(task)
    tested = min(len(task.test), config.evaluation.test_cap)
    read = _packed(tested, row, prefix, config.evaluation.max_tokens_per_pack)
    read += tested * task.spec.max_new_tokens
    if not of.budget:
        return Work.of_tokens(0.0, read)
    batch, steps = schedule(training, of.budget)
    pack = training.max_tokens_per_pack
    if training.early_stopping:
        validated = task.n_validation(of.budget)
        read += steps // training.early_stopping.every_steps * _packed(validated, row, prefix, pack)
    return Work.of_tokens(steps * _packed(batch, row, prefix, pack), read)


def _lengths(task: Task) -> tuple[float, float]:
    """Tokens of a row with its answer, of the instruction before it; from characters."""
    sample = task.test[:SAMPLE]
    row = sum(len(e.text) + len(e.target or "") for e in sample) / len(sample)
    return row / CHARACTERS_PER_TOKEN, len(task.spec.description) / CHARACTERS_PER_TOKEN


def _packed(rows: int, row: float, prefix: float, pack: float) -> float:
    """Tokens of `rows` rows in packs that carry their prefix once."""
    packs = max(1.0, rows * row / max(pack - prefix, row, 1.0))
    return rows * row + min(packs, rows) * prefix


def _paces(
    plan: Plan, results: Mapping[Cell, Mapping[str, Any]], parameters: float
) -> tuple[float, float]:
    """(seconds of training, of evaluation) per operation and parameter."""
    cluster = plan.config.cluster
    guess = parameters / (_tflops(cluster) * 1e12 * cluster.workers_per_job)
    works = {cell: work_of(plan, cell) for cell in results}
    trained = sum(works[cell].training for cell, r in results.items() if r["training"])
    read = sum(works[cell].reading for cell in results)
    training = sum((r["training"] or {}).get("seconds", 0.0) for r in results.values())
    reading = sum(r["evaluation_seconds"] for r in results.values())
    pace = reading / read if read and reading else guess
    return (training / trained if trained and training else pace), pace


def _tflops(cluster: ClusterConfig) -> float:
    if cluster.tflops_per_worker:
        return cluster.tflops_per_worker
    if cluster.gpus_per_worker:
        return GPU_TFLOPS * cluster.gpus_per_worker
    return THREAD_TFLOPS * cluster.threads_per_worker


def _stored(task: Task, config: RunConfig) -> float:
    sample = task.test[:SAMPLE]
    texts = 3 * sum(len(e.target or "") for e in sample) / len(sample)
    rows = min(len(task.test), config.evaluation.test_cap)
    return RESULT_BYTES + rows * (PREDICTION_BYTES + texts)
