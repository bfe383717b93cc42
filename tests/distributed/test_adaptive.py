"""The adaptive grid, its cells answered from made-up curves; once with each executor, trained."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from taskeff.config_file import parse_config
from taskeff.distributed.executor import RayExecutor
from taskeff.estimate.adaptive import SCOUTS
from taskeff.estimate.shapes import Beta
from taskeff.run.adaptive import next_step, outlook
from taskeff.run.driver import begin, calibrate
from taskeff.run.inline import InlineExecutor
from taskeff.run.plan import make_plan
from taskeff.run.results import conclude
from taskeff.tasks.suite import suite_tasks
from tests.distributed.drivers import kept
from tests.helpers import markers, publish_signal, run_values

BUDGETS = [4, 8, 16, 32, 64, 128]


def planned(tiny_model, storage):
    """Twelve tasks and one held out."""
    values = run_values(tiny_model, storage, grid="adaptive")
    # Some of its answers are longer in the tests' tokens than the task lets a model write.
    chosen = [name for name in suite_tasks() if name != "city_country"][:13]
    values["tasks"] = {"calibration": chosen[:12], "held_out": chosen[12:]}
    values["training"]["budgets"] = BUDGETS
    values["curve"] = {"cap": 128}
    values["cluster"] = {"task_seeds_per_job": 6}
    return make_plan(parse_config(values, "test"))


@pytest.fixture(scope="module")
def plan(tiny_model, tmp_path_factory):
    return planned(tiny_model, tmp_path_factory.mktemp("adaptive"))


@pytest.fixture(scope="module")
def signals(plan):
    return publish_signals(plan)


def publish_signals(plan):
    """Made-up CoS-Lows, as if measured."""
    return {
        name: publish_signal(plan, name, 0.1 + 0.05 * index)
        for index, name in enumerate(plan.tasks)
    }


def publish(plan, signals, cell) -> None:
    """The cell's score on a curve whose area follows CoS-Low, with some scatter."""
    position = list(signals).index(cell.task)
    area = 0.35 + 0.6 * (signals[cell.task]["cos_low"] - 0.1) + 0.08 * np.sin(5 * position)
    x = np.log2(max(cell.budget, 1)) / np.log2(128)
    score = 0.1 + 0.85 * float(Beta(2.0).value(x, area))
    result = {
        **vars(cell),
        "hash": plan.cells[cell],
        "score": round(score * 400) / 400,
        "label_score": None,
        "n_test": 400,
        "evaluation_seconds": 1.0,
        "training": {"seconds": 1.0} if cell.budget else None,
    }
    plan.folder(cell).write_json(result, "result.json")


def test_determined_cells_are_skipped_and_marked(plan, signals):
    assert "known once" in outlook(plan, plan.results())
    rounds = 0
    while (step := next_step(plan, plan.results(), signals)).cells:
        assert not set(step.cells) & plan.results().keys()
        if not rounds:
            tasks = {cell.task for cell in step.cells if cell.budget}
            assert len(tasks) == SCOUTS + 1
            assert set(plan.held_out) <= tasks
            assert sum(not cell.budget for cell in step.cells) == 13
        for cell in step.cells:
            publish(plan, signals, cell)
        rounds += 1
    assert 1 < rounds <= 1 + len(BUDGETS)
    measured = {(cell.task, cell.budget) for cell in plan.results()}
    imputed = {(task, n) for task, scores in step.imputed.items() for n in scores}
    assert imputed
    assert not measured & imputed
    assert measured | imputed == {(cell.task, cell.budget) for cell in plan.cells}
    assert not {task for task, _ in imputed} & set(plan.held_out)
    assert (
        outlook(plan, plan.results())
        == f"skippable: {len(imputed)} cells are determined by what is measured"
    )

    # One more that a run before this one measured: it stands beside no imputed one of its name.
    publish(plan, signals, next(c for c in plan.cells if (c.task, c.budget) in imputed))
    begin(plan, plan.config, Console(quiet=True))
    conclude(plan, plan.results(), signals, 1.0, Console(quiet=True), step.imputed)
    rows = pq.read_table(plan.store.path("curves.parquet")).to_pylist()
    marked = {(r["task"], r["budget"]) for r in rows if r["status"] == "imputed"}
    assert marked == imputed
    assert {(r["task"], r["budget"]) for r in rows if r["status"] == "measured"} == measured
    assert all(r["hash"] is None for r in rows if r["status"] == "imputed")


def test_a_resumed_run_decides_the_same(plan, signals):
    first = next_step(plan, plan.results(), signals)
    assert not first.cells
    assert next_step(plan, plan.results(), signals) == first


@pytest.mark.slow
@pytest.mark.parametrize(
    "executor", [InlineExecutor, pytest.param(RayExecutor, marks=pytest.mark.cluster)]
)
def test_the_loop_measures_what_is_open_and_no_more(executor, tiny_model, tmp_path):
    """The scouts and the held-out task are made up; the other two are really trained."""
    plan = planned(tiny_model, tmp_path)
    signals = publish_signals(plan)
    first = next_step(plan, {}, signals).cells
    whole = {cell.task for cell in first if cell.budget}
    for cell in first:
        if cell.task in whole:
            publish(plan, signals, cell)
    made_up = markers(tmp_path)
    rounds = []

    class Watched(executor):
        def cells(self, plan, cells, progress):
            rounds.append(list(cells))
            super().cells(plan, cells, progress)

    calibrate(plan.config, Watched, Console(quiet=True))
    done = markers(tmp_path)
    assert kept(made_up, done)
    trained = {cell for cell in plan.results() if cell.task not in whole}
    assert {cell.task for cell in trained} == set(plan.tasks) - whole
    # Everybody's zero-shot score first, then one budget of a task at a time, each cell once.
    assert {cell.budget for cell in rounds[0] if cell.task not in whole} == {0}
    assert len(rounds) > 1
    for cells in rounds[1:]:
        assert len({cell.task for cell in cells}) == len(cells)
    asked = [cell for cells in rounds for cell in cells if cell.task not in whole]
    assert sorted(asked) == sorted(trained)
    rows = pq.read_table(plan.store.path("curves.parquet")).to_pylist()
    imputed = {(r["task"], r["budget"]) for r in rows if r["status"] == "imputed"}
    assert {task for task, _ in imputed} <= set(plan.tasks) - whole
    assert {(c.task, c.budget) for c in plan.results()} | imputed == {
        (c.task, c.budget) for c in plan.cells
    }

    calibration = plan.store.read_bytes("calibration.json")
    calibrate(plan.config, executor, Console(quiet=True))
    assert markers(tmp_path) == done
    assert plan.store.read_bytes("calibration.json") == calibration
