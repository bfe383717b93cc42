"""What a run will take: seconds per cell, GPU-hours, money, storage, room. Nothing is started.

Durations come from the run's measured cells where there are any; else from 6 x parameters x tokens
floating-point operations for training and 2 x parameters x tokens for reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Work:
    """Tokens that one cell, or one CoS-Low, puts through the model, an instruction prefix once per
    pack."""

    trained: float
    """Forward and backward."""
    read: float
    """Forward only, or generated."""

    @property
    def training(self) -> float:
        """Floating-point operations of training, per parameter."""
        return 6 * self.trained

    @property
    def reading(self) -> float:
        """Floating-point operations of evaluation, per parameter."""
        return 2 * self.read

    @property
    def operations(self) -> float:
        """Floating-point operations, per parameter."""
        return self.training + self.reading


@dataclass(frozen=True)
class Durations:
    """Seconds that cells, and the CoS-Lows of the tasks so named, are expected to take, and where
    they come from."""

    seconds: Mapping[Any, float]
    source: str


@dataclass(frozen=True)
class Forecast:
    """What is left of a run's cells; CoS-Low is not in it.

    `hours` are GPU-hours, or worker-hours where there is no GPU.
    """

    cells: int
    done: int
    durations: Durations
    schedule: Schedule
    lanes: int
    hours: float
    money: float | None
    storage_bytes: float
    need: Demand

    @property
    def pending(self) -> int:
        """Cells still to be measured."""
        return len(self.durations.seconds)


def forecast(plan: Plan, results: Mapping[Cell, Mapping[str, Any]]) -> Forecast:
    """What the rest of the run will take after `results`.

    Raises:
        ClusterError: the cluster's node types can never hold one job.
        ModelError: the model's configuration cannot be read.
    """
    config = plan.config
    parameters = parameter_count(config)
    need = demand(config, parameters)
    lanes = lanes_of(config.cluster, need)
    pending = [cell for cell in plan.cells if cell not in results]
    durations = expected(plan, pending, results, parameters)
    schedule = make_schedule(durations.seconds, lanes, per_job=config.cluster.task_seeds_per_job)
    cluster = config.cluster
    hours = schedule.busy / 3600 * cluster.workers_per_job * (cluster.gpus_per_worker or 1)
    price = cluster.price_per_gpu_hour if cluster.gpus_per_worker else None
    return Forecast(
        cells=len(plan.cells),
        done=len(results),
        durations=durations,
        schedule=schedule,
        lanes=lanes,
        hours=hours,
        money=None if price is None else price * hours,
        storage_bytes=sum(_stored(plan.tasks[cell.task], config) for cell in durations.seconds),
        need=need,
    )


def lines(config: RunConfig, found: Forecast, *, placement: bool = True) -> list[str]:
    """The forecast in words, a line per task and seed with pending cells.

    Args:
        placement: say too what a job needs and how many run side by side.
    """
    out = [f"{found.cells} cells: {found.done} done, {found.pending} to measure"]
    for left in by_task_and_seed(found.durations.seconds):
        seconds = sum(found.durations.seconds[cell] for cell in left.cells)
        budgets = ", ".join(map(str, left.budgets))
        out.append(f"  {left.task:<28} seed {left.seed}  budgets {budgets}  about {_time(seconds)}")
    if not found.pending:
        return out
    cluster = config.cluster
    jobs = len(found.schedule.jobs)
    unit = "GPU-hours" if cluster.gpus_per_worker else "worker-hours"
    money: list[str] = []
    if found.money is not None:
        price = f"{cluster.price_per_gpu_hour:g} per GPU-hour"
        money = [f"money: about {found.money:.2f} at {price}"]
    out += [
        f"time: cells about {_time(found.schedule.makespan)} ({jobs} jobs, {found.lanes} at a "
        f"time), {found.hours:.3g} {unit}; from {found.durations.source}",
        *money,
        f"storage: about {found.storage_bytes / 1e6:.3g} MB",
    ]
    if placement:
        out += [
            f"placement: a job needs {found.need}" + _room(cluster, found),
            f"lanes: {found.lanes}; the head needs about {head_memory(found.lanes):.0f} GB of "
            "memory" + ("" if cluster.head_memory_gb else ", cluster.head_memory_gb is not given"),
        ]
    return out


def _room(cluster: ClusterConfig, found: Forecast) -> str:
    if not cluster.node_types:
        return "; cluster.node_types are not given, so not checked"
    return f"; the node types hold {jobs_at_once(cluster, found.need)} at once"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def check_placement(config: RunConfig) -> int:
    """Jobs that can run side by side; the model's size counts only where node types state memory.

    Raises:
        ClusterError: the node types can never hold one job.
    """
    stated = any(kind.gpu_memory_gb or kind.memory_gb for kind in config.cluster.node_types)
    parameters = parameter_count(config) if stated else None
    return lanes_of(config.cluster, demand(config, parameters))


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
) -> Durations:
    """Seconds that each of `wanted` will take: cells, or tasks for their CoS-Lows.

    Args:
        results: what is measured already; its pace holds for the rest.
        parameters: of the model.
    """
    training, reading = _paces(plan, results, parameters)
    works = {of: work_of(plan, of) for of in wanted}
    seconds = {of: w.training * training + w.reading * reading for of, w in works.items()}
    if results:
        source = f"the pace of {len(results)} measured cells"
    else:
        per_worker = _tflops(plan.config.cluster)
        source = f"6ND at {per_worker:g} TFLOP/s per worker; nothing is measured yet"
    return Durations(seconds, source)


def cheap_first(plan: Plan, cells: Iterable[Cell]) -> list[Cell]:
    """Seed by seed, cheap cells first: an interrupted run so has whole curves of some seeds.

    The order does not depend on what is measured already.
    """
    return sorted(cells, key=lambda cell: (cell.seed, work_of(plan, cell).operations, cell))


def work_of(plan: Plan, of: Cell | str) -> Work:
    """Tokens of a cell, or of a task's CoS-Low."""
    if isinstance(of, Cell):
        return work(plan.tasks[of.task], of.budget, plan.config)
    task, settings = plan.tasks[of], plan.config.coslow
    pool = len(task.train) if settings.pool_cap is None else min(len(task.train), settings.pool_cap)
    row, prefix = _lengths(task)
    # The pool is read once; two sets of examples, the chosen and the random, go both ways.
    read = _packed(pool, row, prefix, settings.max_tokens_per_pack)
    read += pool * min(settings.max_new_tokens, task.spec.max_new_tokens)
    trained = 2 * _packed(settings.n_examples, row, prefix, settings.max_tokens_per_pack)
    return Work(trained, read)


def work(task: Task, budget: int, config: RunConfig) -> Work:
    """Tokens of the cell (`task`, `budget`); early stopping is taken not to happen."""
    from taskeff.finetune.loop import schedule

    row, prefix = _lengths(task)
    tested = min(len(task.test), config.evaluation.test_cap)
    read = _packed(tested, row, prefix, config.evaluation.max_tokens_per_pack)
    read += tested * task.spec.max_new_tokens
    if not budget:
        return Work(0.0, read)
    training = config.training
    batch, steps = schedule(training, budget)
    pack = training.max_tokens_per_pack
    if training.early_stopping:
        validated = task.n_validation(budget)
        read += steps // training.early_stopping.every_steps * _packed(validated, row, prefix, pack)
    return Work(steps * _packed(batch, row, prefix, pack), read)


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
