"""A whole calibration on local Ray, and what survives when it is broken."""

import json
import os
import shutil
import signal

import psutil
import pytest
from rich.console import Console

from taskeff.config_file import parse_config
from taskeff.distributed.executor import RayExecutor
from taskeff.run.driver import calibrate
from tests.distributed.drivers import below, end, kept, read_until, start
from tests.helpers import TASKS, markers, run_cli, run_values, write_config

pytestmark = [pytest.mark.cluster]


def test_a_calibration_ends_in_a_report(undisturbed):
    run = undisturbed / "tiny"
    calibration = json.loads((run / "calibration.json").read_text())
    assert [task["name"] for task in calibration["tasks"]] == sorted(TASKS[:2])
    assert set(calibration["controls"]) >= {"random_cosine", "mean_confidence", "zero_shot"}
    assert len(markers(undisturbed)) == 9 + 3
    page = (run / "report.html").read_text()
    assert all(task in page for task in TASKS)
    assert str(undisturbed) not in page


def test_running_it_again_measures_nothing(undisturbed, tiny_model):
    before, text = markers(undisturbed), (undisturbed / "tiny/calibration.json").read_bytes()
    lines = Console(record=True, quiet=False, file=open(os.devnull, "w"))  # noqa: SIM115
    calibrate(parse_config(run_values(tiny_model, undisturbed), "test"), RayExecutor, lines)
    assert markers(undisturbed) == before
    assert (undisturbed / "tiny/calibration.json").read_bytes() == text
    said = lines.export_text()
    assert "all 9 cells are measured already" in said
    assert "all 3 tasks are measured already" in said


def test_the_page_can_be_made_again(undisturbed, tiny_model, tmp_path, monkeypatch, capsys):
    page = undisturbed / "tiny" / "report.html"
    before = page.read_bytes()
    page.unlink()
    config = write_config(tmp_path, run_values(tiny_model, undisturbed))
    code, _, _ = run_cli(monkeypatch, capsys, "report", "-c", config)
    assert code == 0
    assert page.read_bytes() == before


@pytest.mark.slow
def test_a_killed_driver_goes_on_where_it_was(undisturbed, tiny_model, tmp_path):
    storage = tmp_path / "results"
    config = write_config(tmp_path, run_values(tiny_model, storage))
    driver = start(config)
    read_until(driver, "[  2/9]")
    children = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    end(children)
    finished = markers(storage)
    assert 2 <= len(finished) < 12
    again = start(config)
    output, _ = again.communicate()
    assert again.returncode == 0, output
    after = markers(storage)
    assert kept(finished, after)
    assert len(after) == 12
    ours, theirs = (s / "tiny/calibration.json" for s in (storage, undisturbed))
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.slow
def test_an_interrupt_says_how_to_go_on_and_ends_as_shells_expect(tiny_model, tmp_path):
    driver = start(write_config(tmp_path, run_values(tiny_model, tmp_path)))
    read_until(driver, "[  1/9]")
    driver.send_signal(signal.SIGINT)
    output, _ = driver.communicate()
    assert driver.returncode == 130, output
    assert output.splitlines()[-1] == "stopped; the same command goes on where this one ended"
    assert "Traceback" not in output
    assert markers(tmp_path)


@pytest.mark.slow
def test_a_killed_worker_is_replaced(undisturbed, tiny_model, tmp_path):
    storage = tmp_path / "results"
    driver = start(write_config(tmp_path, run_values(tiny_model, storage)))
    read_until(driver, "[  1/9]")
    workers = below(driver.pid, "RayTrainWorker")
    assert workers, "no training worker was found"
    workers[0].kill()
    output, _ = driver.communicate()
    assert driver.returncode == 0, output
    ours, theirs = (s / "tiny/calibration.json" for s in (storage, undisturbed))
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.slow
def test_a_truncated_result_is_measured_again(undisturbed, tiny_model, tmp_path):
    storage = tmp_path / "results"
    shutil.copytree(undisturbed, storage)
    broken = next((storage / "tiny/cells").glob("**/result.json"))
    broken.write_text(broken.read_text()[:20])
    before = markers(storage)
    config = parse_config(run_values(tiny_model, storage), "test")
    calibrate(config, RayExecutor, Console(quiet=True))
    changed = {path for path, time in markers(storage).items() if before[path] != time}
    assert changed == {str(broken.relative_to(storage))}
    ours, theirs = (s / "tiny/calibration.json" for s in (storage, undisturbed))
    assert ours.read_bytes() == theirs.read_bytes()
