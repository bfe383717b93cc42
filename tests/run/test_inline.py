"""The run without Ray: that it is what Ray measures, and what torchrun measures of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from taskeff.config_file import parse_config
from taskeff.lease import Lease
from taskeff.run.driver import calibrate
from taskeff.run.plan import make_plan
from taskeff.storage import Store
from tests.helpers import TASKS, markers, run_python, run_values, write_config

QUIET = Console(quiet=True)


def test_it_ends_in_a_report(local_run):
    calibration = json.loads((local_run / "tiny/calibration.json").read_text())
    assert [task["name"] for task in calibration["tasks"]] == sorted(TASKS[:2])
    assert all(task in (local_run / "tiny/report.html").read_text() for task in TASKS)


@pytest.mark.slow
@pytest.mark.cluster
def test_it_is_what_ray_measures(local_run, tiny_model, tmp_path):
    from taskeff.distributed.executor import RayExecutor

    calibrate(parse_config(run_values(tiny_model, tmp_path), "test"), RayExecutor, QUIET)
    assert markers(local_run).keys() == markers(tmp_path).keys()
    ours, theirs = (s / "tiny/calibration.json" for s in (local_run, tmp_path))
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.slow
def test_torchrun_measures_the_cells_on_two_workers(local_run, tiny_model, tmp_path):
    values = run_values(tiny_model, tmp_path)
    values["cluster"]["workers_per_job"] = 2
    script = Path(__file__).parents[2] / "jobs/cells.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(script), "-c", str(write_config(tmp_path, values))]
    with Lease(Store(str(tmp_path / "tiny")), 60) as lease:
        refused = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert refused.returncode
    assert f"driver {lease.owner} is working on this run" in refused.stderr
    subprocess.run(command, check=True, timeout=300)
    assert not list((tmp_path / "tiny/lease").iterdir())
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
    script = Path(__file__).parents[2] / "jobs/cells.py"
    command = [sys.executable, str(script), "-c", str(tmp_path / "none.yaml")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "none.yaml" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


def test_ray_is_never_imported(tiny_model, tmp_path):
    config = write_config(tmp_path, run_values(tiny_model, tmp_path))
    code = (
        "import sys; from taskeff.cli import main;"
        f"sys.argv = ['taskeff', 'calibrate', '-c', {str(config)!r}, '--part', '1/13'];"
        "main.__globals__['app'](standalone_mode=False);"
        "print([m for m in sys.modules if m == 'ray' or m.startswith('ray.')])"
    )
    done = run_python(code)
    assert done.stdout.splitlines()[-1] == "[]"
