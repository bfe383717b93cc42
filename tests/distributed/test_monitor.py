"""What Tune tells the driver, in the driver's words: no cluster."""

from types import SimpleNamespace

import pytest
from rich.console import Console

from taskeff.config_file import parse_config
from taskeff.distributed.monitor import Monitor
from taskeff.distributed.trainer import reason
from taskeff.errors import ClusterError
from taskeff.finetune.cells import Cell
from taskeff.run.progress import Progress
from tests.helpers import run_values

TRIAL = SimpleNamespace(config={"job": "sorting-0"})
CELL = {"task": "sorting", "budget": 8, "seed": 0}


@pytest.fixture
def told(tmp_path):
    """(progress, monitor, a function that reports to it)"""
    config = parse_config(run_values(tmp_path, tmp_path), "test")

    def lost() -> None:
        raise ClusterError("lost this run's lease")

    progress = Progress(Console(quiet=True), {Cell(**CELL): 1.0}, total=1, check=lost)
    monitor = Monitor(progress, config)
    return progress, monitor, lambda **result: monitor.on_trial_result(0, [], TRIAL, result)


def test_cells_failures_and_crashes_reach_the_driver(told):
    progress, monitor, report = told
    report(started=True)
    report(**CELL, score=0.5, seconds=2.0)
    report(**CELL, score=0.5, seconds=2.0)  # again, after a restart
    report(errors={"sorting seed 1": "no label"})
    report(crash="out of luck")
    assert progress.done == 1
    assert progress.failures == {"sorting seed 1": "no label"}
    assert monitor.crashes == {"sorting-0": "out of luck"}


def test_what_the_check_raises_ends_the_grid(told):
    _, monitor, _ = told
    with pytest.raises(ClusterError, match="lost this run's lease"):
        monitor.on_step_begin(0, [])


def test_the_reason_is_the_last_line_that_says_something():
    error = RuntimeError("Training failed\n  File x\nValueError: no label\n\n")
    assert reason(error) == "ValueError: no label"
    assert reason(RuntimeError()) == "RuntimeError"
