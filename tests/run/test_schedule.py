"""Schedules: pure arithmetic, no Ray."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.calibration import published_grid, simulated_schedules
from taskeff.finetune.cells import Cell
from taskeff.run.schedule import JOB_START_SECONDS, make_schedule, simulate


def grid(n_tasks: int, budgets=(0, 50, 500, 5000), seconds=lambda task, budget: 10 + budget):
    return {Cell(f"t{t}", b, 0): float(seconds(t, b)) for t in range(n_tasks) for b in budgets}


def cells_of(schedule):
    return [cell for job in schedule.jobs for part in job.parts for cell in part.cells]


@settings(max_examples=60, deadline=None)
@given(
    tasks=st.integers(1, 12),
    lanes=st.integers(1, 40),
    per_job=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_every_cell_runs_once_and_longest_jobs_start_first(tasks, lanes, per_job, seed):
    rng = random.Random(seed)
    seconds = grid(tasks, seconds=lambda *_: rng.uniform(1, 1000))
    schedule = make_schedule(seconds, lanes, per_job=per_job)
    assert sorted(cells_of(schedule)) == sorted(seconds)
    assert len({job.name for job in schedule.jobs}) == len(schedule.jobs)
    durations = [job.seconds for job in schedule.jobs]
    assert durations == sorted(durations, reverse=True)
    assert sum(durations) == pytest.approx(sum(seconds.values()))
    assert all(len(job.parts) <= per_job for job in schedule.jobs)
    # Graham: LPT ends within 4/3 of the best schedule of the same jobs.
    starts = [JOB_START_SECONDS + d for d in durations]
    assert schedule.makespan <= 4 / 3 * max(max(starts), sum(starts) / lanes) + max(starts) / 3


def test_tasks_stay_whole_where_lanes_are_fewer():
    schedule = make_schedule(grid(8), 2)
    assert len(schedule.jobs) == 8
    assert all(part.budgets == (0, 50, 500, 5000) for job in schedule.jobs for part in job.parts)


def test_tasks_are_split_where_lanes_outnumber_them():
    seconds = grid(2, seconds=lambda *_: 1000.0)
    schedule = make_schedule(seconds, 8)
    assert len(schedule.jobs) == 8
    assert schedule.makespan == 1000 + JOB_START_SECONDS


def test_cells_shorter_than_a_worker_groups_start_are_not_split():
    seconds = grid(2, seconds=lambda *_: 1.0)
    assert len(make_schedule(seconds, 8).jobs) == 2


def test_short_tasks_share_a_job_but_leave_no_lane_idle():
    jobs = make_schedule(grid(12), 2, per_job=6).jobs
    assert [len(job.parts) for job in jobs] == [6, 6]
    jobs = make_schedule(grid(3), 2, per_job=6).jobs
    assert sorted(len(job.parts) for job in jobs) == [1, 2]


def test_simulated_time_is_that_of_list_scheduling():
    assert simulate([5, 4, 3, 3], 2) == 8
    assert simulate([], 3) == 0


@pytest.mark.parametrize("seed", range(5))
def test_64_lanes_end_as_early_as_they_can(seed):
    seconds = published_grid(seed)
    assert len(seconds) == 30 * 8
    found = simulated_schedules(seconds, lanes=64)
    assert found["ratio"] <= 1.05
    assert found["jobs"] > 30
