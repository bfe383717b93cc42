"""One driver for both executors: shares of the work, its order, the lease, what is asked of the
storage, what fails."""

import shutil
from collections import Counter

import pytest
from rich.console import Console

from taskeff.config_file import parse_config
from taskeff.coslow.pipeline import Outcome
from taskeff.coslow.result import RESULT
from taskeff.distributed.executor import RayExecutor
from taskeff.errors import ClusterError, ConfigError, DataError, TaskeffError
from taskeff.finetune.cells import Cell
from taskeff.lease import Lease
from taskeff.run.cost import cheap_first, work_of
from taskeff.run.driver import calibrate
from taskeff.run.inline import InlineExecutor
from taskeff.run.plan import make_plan
from taskeff.storage import Store
from tests.filesystems import empty_bucket
from tests.helpers import TASKS, markers, publish_signal, run_cli, run_values, write_config

QUIET = Console(quiet=True)
bucket = pytest.fixture(empty_bucket)


@pytest.fixture
def config(tiny_model, tmp_path):
    return parse_config(run_values(tiny_model, tmp_path), "test")


class Watched(InlineExecutor):
    """Measures nothing really; remembers what it was asked for and publishes it."""

    def __init__(self, config):
        super().__init__(config)
        self.plan, self.asked = make_plan(config), []
        Watched.last = self

    def cells(self, plan, cells, progress):
        self.asked += cheap_first(plan, cells)
        for cell in cells:
            score = 0.1 + 0.004 * cell.budget + 0.001 * TASKS.index(cell.task)
            result = {"hash": plan.cells[cell], "score": score, "label_score": None, "n_test": 30}
            training = {"seconds": 1.0} if cell.budget else None
            result |= {**vars(cell), "evaluation_seconds": 1.0, "training": training}
            plan.folder(cell).write_json(result, "result.json")
            progress.cell(cell, score, 1.0)

    def data_sets(self, data_sets, model, settings, scoring):
        for one in data_sets:
            self.asked.append(one.name)
            publish_signal(self.plan, one.name, 0.1 * (1 + TASKS.index(one.name)))
            yield Outcome(one.name, "measured")


def test_parts_share_the_work(config, tmp_path):
    asked = []
    for part in ((0, 2), (1, 2)):
        assert calibrate(config, Watched, QUIET, part=part) is None
        asked.append(Watched.last.asked)
    plan = make_plan(config)
    assert [len(jobs) for jobs in asked] == [6, 6]
    assert set(asked[0]) | set(asked[1]) == {*plan.cells, *plan.tasks}
    assert not (tmp_path / "tiny/calibration.json").exists()
    assert calibrate(config, Watched, QUIET) is not None
    assert Watched.last.asked == []
    assert (tmp_path / "tiny/report.html").exists()


def test_a_part_leaves_the_others_share_alone(config, local_run, tmp_path):
    shutil.copytree(local_run, tmp_path, dirs_exist_ok=True)
    plan = make_plan(config)
    for job in [*cheap_first(plan, plan.cells), *plan.tasks][1::2]:
        plan.folder(job).remove("result.json" if isinstance(job, Cell) else RESULT)
    left = markers(tmp_path)
    assert len(left) == 6
    assert calibrate(config, InlineExecutor, QUIET, part=(0, 2)) is None
    assert markers(tmp_path) == left


def test_seed_by_seed_cheap_cells_first(tiny_model, tmp_path):
    values = run_values(tiny_model, tmp_path)
    values["training"] = {**values["training"], "seeds": [0, 1]}
    plan = make_plan(parse_config(values, "test"))
    cells = cheap_first(plan, plan.cells)
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    for seed in (0, 1):
        costs = [sum(work_of(plan, cell)) for cell in cells if cell.seed == seed]
        assert costs == sorted(costs)
    assert {cell.task for cell in cells[:3]} == set(TASKS)
    assert all(not cell.budget for cell in cells[:3])


def test_narrowed_runs_fit_nothing(config, tmp_path):
    assert calibrate(config, Watched, QUIET, only_tasks=TASKS[:1], only_budgets=[8]) is None
    assert Watched.last.asked == [Cell(TASKS[0], 0, 0), Cell(TASKS[0], 8, 0)]
    assert not (tmp_path / "tiny/calibration.json").exists()


def test_a_part_that_is_none(config, tiny_model, tmp_path, monkeypatch, capsys):
    with pytest.raises(ConfigError, match="part 2/2"):
        calibrate(config, InlineExecutor, QUIET, part=(2, 2))
    file = write_config(tmp_path, run_values(tiny_model, tmp_path))
    for part in ("2", "a/b", "-1/2", "0/0"):
        code, _, err = run_cli(monkeypatch, capsys, "calibrate", "-c", file, "--part", part)
        assert code == 2 and "part" in err
    adaptive = config.model_copy(update={"grid": "adaptive"})
    with pytest.raises(ConfigError, match="set grid=full, or run it without --part"):
        calibrate(adaptive, InlineExecutor, QUIET, part=(0, 2))


@pytest.mark.parametrize(
    ("first", "second"), [(RayExecutor, InlineExecutor), (InlineExecutor, RayExecutor)]
)
def test_a_second_driver_is_refused_whatever_either_measures_with(config, first, second):
    """The second comes while the first is measuring."""

    class Beside(first):
        def cells(self, plan, cells, progress):
            (name,) = plan.store.names("lease")
            owner = plan.store.read_json("lease", name)["owner"]
            for part in (None, (0, 2)):
                with pytest.raises(ClusterError, match=f"driver {owner} is working on this run"):
                    calibrate(config, second, QUIET, part=part)
            progress.check()
            raise TaskeffError("seen")

    with pytest.raises(TaskeffError, match="seen"):
        calibrate(config, Beside, QUIET)
    assert not Store(config.storage).names("tiny", "lease")


def test_parts_work_side_by_side(config):
    class Beside(Watched):
        def cells(self, plan, cells, progress):
            assert calibrate(config, Watched, QUIET, part=(1, 2)) is None
            with pytest.raises(ClusterError, match="is working on part 0/2 of this run"):
                calibrate(config, Watched, QUIET)
            super().cells(plan, cells, progress)

    assert calibrate(config, Beside, QUIET, part=(0, 2)) is None
    assert len(make_plan(config).results()) == 9


def test_a_lost_lease_ends_the_run(config):
    class Slow(Watched):
        def cells(self, plan, cells, progress):
            (name,) = plan.store.names("lease")
            plan.store.write_bytes(plan.store.read_bytes("lease", name), "lease", "00000009.json")
            progress.check()

    with pytest.raises(ClusterError, match="lost this run's lease"):
        calibrate(config, Slow, QUIET)
    plan = make_plan(config)
    plan.store.remove("lease", "00000009.json")
    Lease(plan.store, 60).acquire()


def reads(bucket) -> Counter:
    """How often each result was asked for in any way."""
    files = ("/result.json", f"/{RESULT}")
    asked = Counter(path for what, path in bucket.asked if path.endswith(files))
    asked.subtract(path for what, path in bucket.asked if what == "write")
    return +asked


def test_results_are_read_once_per_pass_with_one_request(tiny_model, bucket):
    """Looked for once, read once after they were measured; those that are there, read once."""
    config = parse_config(run_values(tiny_model, "bucket://shelf/results"), "test")
    calibrate(config, Watched, QUIET)
    assert sorted(reads(bucket).values()) == [2] * 12
    bucket.asked.clear()
    calibrate(config, Watched, QUIET)
    assert sorted(reads(bucket).values()) == [1] * 12


def test_what_a_cell_leaves_is_not_asked_for_by_its_measurement(tiny_model, bucket):
    config = parse_config(run_values(tiny_model, "bucket://shelf/results"), "test")
    calibrate(config, InlineExecutor, QUIET, only_tasks=TASKS[:1], only_budgets=[8])
    assert sorted(reads(bucket).values()) == [2, 2]


def test_one_that_fails_leaves_the_others_alone(config, tmp_path, monkeypatch):
    from taskeff.run import inline

    measure, tried = inline.measure, []

    def failing(wanted, *arguments, **options):
        tried.append(wanted)
        if wanted.task == TASKS[1]:
            raise DataError("row 7 has no label")
        measure(wanted, *arguments, **options)

    monkeypatch.setattr(inline, "measure", failing)
    said = rf"1 failed.*\n- {TASKS[1]} seed 0: row 7 has no label"
    with pytest.raises(TaskeffError, match=said):
        calibrate(config, InlineExecutor, QUIET, only_tasks=TASKS[:2], only_budgets=[8])
    assert len([one for one in tried if one.task == TASKS[1]]) == 1
    assert len(make_plan(config).results()) == 2
    (log,) = (tmp_path / "tiny/logs" / f"{TASKS[1]}-0").iterdir()
    assert "row 7 has no label" in log.read_text()
