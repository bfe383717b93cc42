"""Which cells share a worker group, and how long that takes: pure functions, no Ray.

A *job* is what one worker group measures, one cell after the other; a *lane* is room for one job
at a time. Jobs start longest first on whichever lane is free (Graham's LPT rule).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from taskeff.finetune.cells import Cell, Row

JOB_START_SECONDS = 25.0
"""What starting a worker group costs: processes, imports, the model. Measured on two CPU cores."""
SPLITS = range(1, 17)


@dataclass(frozen=True)
class Job:
    """Rows, or a piece of one, that one worker group measures; `seconds` without its start."""

    name: str
    """In messages and folders: its first row's, with the budgets of a piece."""
    rows: tuple[Row, ...]
    seconds: float


@dataclass(frozen=True)
class Schedule:
    """Jobs in starting order and when the last of them ends, in seconds."""

    jobs: tuple[Job, ...]
    makespan: float
    start_seconds: float

    @property
    def busy(self) -> float:
        """Seconds that lanes are taken, the starts of worker groups included."""
        return sum(self.start_seconds + job.seconds for job in self.jobs)


def row_name(row: Row) -> str:
    """A row's name in messages."""
    return f"{row.task}-{row.seed}"


def make_schedule(
    seconds: Mapping[Cell, float],
    lanes: int,
    *,
    rows_per_job: int = 1,
    start_seconds: float = JOB_START_SECONDS,
) -> Schedule:
    """Deal cells out to jobs so that the last one ends early.

    A row stays whole where it can: its cells share one loaded model. Rows are split where lanes
    would stand idle; several rows share a job, up to `rows_per_job`, where lanes are fewer.

    Args:
        seconds: cell -> its expected duration.
        lanes: jobs that run side by side.
    """
    rows: dict[tuple[str, int], dict[Cell, float]] = {}
    for cell, duration in seconds.items():
        rows.setdefault((cell.task, cell.seed), {})[cell] = duration
    if not rows:
        return Schedule((), 0.0, start_seconds)
    if len(rows) >= lanes and rows_per_job > 1:
        n_jobs = max(lanes, -(-len(rows) // rows_per_job))
        return _schedule(_shared(rows.values(), n_jobs, rows_per_job), lanes, start_seconds)
    longest = max(sum(cells.values()) for cells in rows.values())
    options = []
    for pieces in SPLITS:
        limit = longest / pieces
        jobs = [
            _job([piece], whole=len(piece) == len(row))
            for row in rows.values()
            for piece in _pieces(row, limit)
        ]
        options.append(_schedule(jobs, lanes, start_seconds))
    # A second of every lane counts as much as a second of waiting for the end: each piece starts a
    # worker group of its own, which must buy time.
    return min(options, key=lambda option: option.makespan + option.busy / lanes)


def simulate(durations: Iterable[float], lanes: int) -> float:
    """When the last of the jobs ends if each starts, in this order, on the lane free first."""
    ends = [0.0] * lanes
    for duration in durations:
        heapq.heapreplace(ends, ends[0] + duration)
    return max(ends)


def _schedule(jobs: Sequence[Job], lanes: int, start_seconds: float) -> Schedule:
    ordered = sorted(jobs, key=lambda job: (-job.seconds, job.rows[0].task, job.rows[0].seed))
    makespan = simulate((start_seconds + job.seconds for job in ordered), lanes)
    return Schedule(tuple(ordered), makespan, start_seconds)


def _shared(rows: Iterable[Mapping[Cell, float]], n_jobs: int, per_job: int) -> list[Job]:
    """Whole rows, longest first, each to the job with least to do that has room."""
    dealt: list[list[Mapping[Cell, float]]] = [[] for _ in range(n_jobs)]
    totals = [0.0] * n_jobs
    for row in sorted(rows, key=lambda row: -sum(row.values())):
        open_jobs = [index for index in range(n_jobs) if len(dealt[index]) < per_job]
        least = min(open_jobs, key=lambda index: totals[index])
        dealt[least].append(row)
        totals[least] += sum(row.values())
    return [_job(job) for job in dealt if job]


def _pieces(row: Mapping[Cell, float], limit: float) -> list[dict[Cell, float]]:
    """The row cut so that no piece of several cells is longer than `limit` (first fit, longest
    cell first)."""
    pieces: list[dict[Cell, float]] = []
    for cell, duration in sorted(row.items(), key=lambda item: (-item[1], item[0])):
        for piece in pieces:
            if sum(piece.values()) + duration <= limit * (1 + 1e-9):
                piece[cell] = duration
                break
        else:
            pieces.append({cell: duration})
    return pieces


def _job(parts: Sequence[Mapping[Cell, float]], *, whole: bool = True) -> Job:
    rows = []
    for cells in parts:
        first = next(iter(cells))
        rows.append(Row(first.task, first.seed, tuple(sorted(cell.budget for cell in cells))))
    name = row_name(rows[0])
    if not whole:
        name += "-n" + "-".join(map(str, rows[0].budgets))
    return Job(name, tuple(rows), sum(sum(cells.values()) for cells in parts))
