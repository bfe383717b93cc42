"""The run without Ray: what it measures, in what order, and that it is what Ray measures."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from taskeff.config import parse_config
from taskeff.errors import ConfigError
from taskeff.run.inline import _jobs, calibrate_here
from taskeff.run.plan import make_plan
from tests.helpers import TASKS, markers, run_cli, run_values, write_config

QUIET = Console(quiet=True)


def test_parts_share_the_work_and_nothing_is_measured_twice(local_run, tiny_model, tmp_path):
    shutil.copytree(local_run, tmp_path, dirs_exist_ok=True)
    config = parse_config(run_values(tiny_model, tmp_path), "test")
    jobs = _jobs(make_plan(config))
    assert len(jobs) == len(markers(tmp_path)) == 12
    for job in jobs[1::2]:
        kind = "coslow" if job.cell is None else f"cells/task={job.task}/budget={job.cell.budget}"
        place = f"task={job.task}" if job.cell is None else "seed=0"
        for result in (tmp_path / "tiny" / kind / place).glob("*/result.json"):
            result.unlink()
    left = markers(tmp_path)
    assert len(left) == 6
    assert calibrate_here(config, QUIET, part=(0, 2)) is None
    assert markers(tmp_path) == left


def test_it_ends_in_a_report(local_run):
    calibration = json.loads((local_run / "tiny/calibration.json").read_text())
    assert [task["name"] for task in calibration["tasks"]] == sorted(TASKS[:2])
    assert all(task in (local_run / "tiny/report.html").read_text() for task in TASKS)


@pytest.mark.slow
@pytest.mark.cluster
def test_it_is_what_ray_measures(local_run, tiny_model, tmp_path):
    from taskeff.distributed.driver import calibrate

    calibrate(parse_config(run_values(tiny_model, tmp_path), "test"), QUIET)
    assert markers(local_run).keys() == markers(tmp_path).keys()
    ours, theirs = (s / "tiny/calibration.json" for s in (local_run, tmp_path))
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.slow
def test_torchrun_measures_the_cells_on_two_workers(local_run, tiny_model, tmp_path):
    values = run_values(tiny_model, tmp_path)
    values["cluster"]["workers_per_row"] = 2
    script = Path(__file__).parents[1] / "jobs/cells.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(script), "-c", str(write_config(tmp_path, values))]
    subprocess.run(command, check=True, timeout=300)
    plan, alone = (
        make_plan(parse_config(run_values(tiny_model, storage), "test"))
        for storage in (tmp_path, local_run)
    )
    results, expected = plan.results(), alone.results()
    assert results.keys() == expected.keys() == plan.cells.keys()
    for cell, result in results.items():
        assert result["score"] == expected[cell]["score"]
        if cell.budget:
            assert (result["training"]["strategy"], result["training"]["workers"]) == ("ddp", 2)


@pytest.mark.slow
def test_what_torchrun_cannot_measure_is_one_line(tmp_path):
    script = Path(__file__).parents[1] / "jobs/cells.py"
    command = [sys.executable, str(script), "-c", str(tmp_path / "none.yaml")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "none.yaml" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


def test_seed_by_seed_cheap_cells_first(tiny_model, tmp_path):
    values = run_values(tiny_model, tmp_path)
    values["training"] = {**values["training"], "seeds": [0, 1]}
    jobs = _jobs(make_plan(parse_config(values, "test")))
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs)
    for seed in (0, 1):
        costs = [job.cost for job in jobs if job.seed == seed]
        assert costs == sorted(costs)
    assert {job.task for job in jobs[:3]} == set(TASKS)
    assert all(job.cell and job.cell.budget == 0 for job in jobs[:3])


def test_a_part_that_is_none(tiny_model, tmp_path, monkeypatch, capsys):
    values = run_values(tiny_model, tmp_path)
    with pytest.raises(ConfigError, match="part 2/2"):
        calibrate_here(parse_config(values, "test"), QUIET, part=(2, 2))
    config = write_config(tmp_path, values)
    for part in ("2", "a/b", "-1/2", "0/0"):
        code, _, err = run_cli(monkeypatch, capsys, "calibrate", "-c", config, "--part", part)
        assert code == 2 and "part" in err


def test_ray_is_never_imported(tiny_model, tmp_path):
    config = write_config(tmp_path, run_values(tiny_model, tmp_path))
    code = (
        "import sys; from taskeff.cli import main;"
        f"sys.argv = ['taskeff', 'calibrate', '-c', {str(config)!r}, '--part', '1/13'];"
        "main.__globals__['app'](standalone_mode=False);"
        "print([m for m in sys.modules if m == 'ray' or m.startswith('ray.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
