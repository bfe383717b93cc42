"""Which cells share a worker group, and how long that takes: pure functions, no Ray.

A *job* is what one worker group measures, one cell after the other; a *lane* is room for one job
at a time. Jobs start longest first on whichever lane is free (Graham's LPT rule).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from taskeff.finetune.cells import Cell, TaskSeed, by_task_and_seed

JOB_START_SECONDS = 25.0
"""What starting a worker group costs: processes, imports, the model. Measured on two CPU cores."""
SPLITS = range(1, 17)


@dataclass(frozen=True)
class Job:
    """What one worker group measures; `seconds` without its start."""

    name: str
    """In messages and folders: that of its first task and seed, with the budgets of a piece."""
    parts: tuple[TaskSeed, ...]
    seconds: float


@dataclass(frozen=True)
class Schedule:
    """Jobs in starting order and when the last of them ends, in seconds."""

    jobs: tuple[Job, ...]
    makespan: float

    @property
    def busy(self) -> float:
        """Seconds that lanes are taken, the starts of worker groups included."""
        return sum(JOB_START_SECONDS + job.seconds for job in self.jobs)


def make_schedule(
    seconds: Mapping[Cell, float],
    lanes: int,
    *,
    per_job: int = 1,
) -> Schedule:
    """Deal cells out to jobs so that the last one ends early.

    The cells of one task and seed stay together where they can: they share one loaded model. They
    are split where lanes would stand idle; several tasks and seeds share a job where lanes are
    fewer.

    Args:
        seconds: cell -> its expected duration.
        lanes: jobs that run side by side.
        per_job: tasks and seeds that may share a job.
    """
    wholes = [{c: seconds[c] for c in whole.cells} for whole in by_task_and_seed(seconds)]
    if not wholes:
        return Schedule((), 0.0)
    if len(wholes) >= lanes and per_job > 1:
        n_jobs = max(lanes, -(-len(wholes) // per_job))
        return _schedule(_shared(wholes, n_jobs, per_job), lanes)
    longest = max(sum(cells.values()) for cells in wholes)
    options = []
    for pieces in SPLITS:
        limit = longest / pieces
        jobs = [
            _job([piece], whole=len(piece) == len(whole))
            for whole in wholes
            for piece in _pieces(whole, limit)
        ]
        options.append(_schedule(jobs, lanes))
    # A second of every lane counts as much as a second of waiting for the end: each piece starts a
    # worker group of its own, which must buy time.
    return min(options, key=lambda option: option.makespan + option.busy / lanes)


def simulate(durations: Iterable[float], lanes: int) -> float:
    """When the last of the jobs ends if each starts, in this order, on the lane free first."""
    ends = [0.0] * lanes
    for duration in durations:
        heapq.heapreplace(ends, ends[0] + duration)
    return max(ends)


def _schedule(jobs: Sequence[Job], lanes: int) -> Schedule:
    ordered = sorted(jobs, key=lambda job: (-job.seconds, job.parts[0].task, job.parts[0].seed))
    makespan = simulate((JOB_START_SECONDS + job.seconds for job in ordered), lanes)
    return Schedule(tuple(ordered), makespan)


def _shared(wholes: Iterable[Mapping[Cell, float]], n_jobs: int, per_job: int) -> list[Job]:
    """Tasks and seeds, longest first, each to the job with least to do that has room."""
    dealt: list[list[Mapping[Cell, float]]] = [[] for _ in range(n_jobs)]
    totals = [0.0] * n_jobs
    for whole in sorted(wholes, key=lambda whole: -sum(whole.values())):
        open_jobs = [index for index in range(n_jobs) if len(dealt[index]) < per_job]
        least = min(open_jobs, key=lambda index: totals[index])
        dealt[least].append(whole)
        totals[least] += sum(whole.values())
    return [_job(job) for job in dealt if job]


def _pieces(whole: Mapping[Cell, float], limit: float) -> list[dict[Cell, float]]:
    """A task and seed cut so that no piece of several cells is longer than `limit` (first fit,
    longest cell first)."""
    pieces: list[dict[Cell, float]] = []
    for cell, duration in sorted(whole.items(), key=lambda item: (-item[1], item[0])):
        for piece in pieces:
            if sum(piece.values()) + duration <= limit * (1 + 1e-9):
                piece[cell] = duration
                break
        else:
            pieces.append({cell: duration})
    return pieces


def _job(pieces: Sequence[Mapping[Cell, float]], *, whole: bool = True) -> Job:
    parts = tuple(part for piece in pieces for part in by_task_and_seed(piece))
    name = parts[0].name
    if not whole:
        name += "-n" + "-".join(map(str, parts[0].budgets))
    return Job(name, parts, sum(sum(piece.values()) for piece in pieces))
