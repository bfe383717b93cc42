"""Which cells share a worker group, and how long that takes: pure functions, no Ray.

A *job* is what one worker group measures, one cell after the other; a *lane* is room for one job
at a time. Jobs start longest first on whichever lane is free (Graham's LPT rule).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from taskeff.curves.cells import Cell, Row

JOB_START_SECONDS = 25.0
"""What starting a worker group costs: processes, imports, the model. Measured on two CPU cores."""
SPLITS = range(1, 17)
WORTH_IT = 1.01
"""A finer split must end this much sooner: every piece loads the model once more."""


@dataclass(frozen=True)
class Job:
    """Rows, or pieces of rows, that one worker group measures; `seconds` without its start."""

    rows: tuple[Row, ...]
    seconds: float

    @property
    def name(self) -> str:
        """The job's name in messages and folders: its first row, and its budgets if a piece."""
        return row_name(self.rows[0])


@dataclass(frozen=True)
class Schedule:
    """Jobs in starting order and when the last of them ends, in seconds."""

    jobs: tuple[Job, ...]
    makespan: float
    start_seconds: float


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
        jobs = [_job([piece]) for row in rows.values() for piece in _pieces(row, limit)]
        options.append(_schedule(jobs, lanes, start_seconds))
    best = min(option.makespan for option in options)
    good = [option for option in options if option.makespan <= WORTH_IT * best]
    return min(good, key=lambda option: (len(option.jobs), option.makespan))


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


def _job(parts: Sequence[Mapping[Cell, float]]) -> Job:
    rows = []
    for cells in parts:
        first = next(iter(cells))
        rows.append(Row(first.task, first.seed, tuple(sorted(cell.budget for cell in cells))))
    return Job(tuple(rows), sum(sum(cells.values()) for cells in parts))
