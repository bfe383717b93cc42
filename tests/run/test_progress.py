"""What a running calibration shows."""

import io

import pytest
from rich.console import Console

from taskeff.finetune.cells import Cell
from taskeff.run.progress import Progress, clock

ZERO, FEW, MORE = (Cell("sorting", budget, 0) for budget in (0, 50, 100))
SECONDS = {cell: float(10 + cell.budget) for cell in (ZERO, FEW, MORE)}
SIGNAL = {"task": "sorting", "cos_low": 0.25, "random_cosine": -0.5, "mean_confidence": 0.75}


def shown(terminal: bool) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=120, color_system=None)
    with Progress(console, SECONDS, total=5, done=2, lanes=2) as progress:
        progress.job("sorting-0", "running")
        progress.cell(ZERO, 0.5, 12.0)
        progress.cell(ZERO, 0.5, 12.0)  # reported again after a restart
        progress.cell(FEW, 0.5, 12.0)
        progress.say("job sorting-0: a worker died:", "killed", "yellow")
        progress.failed("sorting seed 0", "no label")
        progress.failed("sorting seed 0", "no label")
    assert progress.done == 4
    assert progress.failures == {"sorting seed 0": "no label"}
    return file.getvalue()


def test_a_line_per_cell_where_there_is_no_terminal():
    lines = shown(terminal=False).splitlines()
    assert lines[0].startswith("  [  3/5] sorting")
    assert "n=0 " in lines[0] and "seed 0" in lines[0] and "score 0.500" in lines[0]
    assert lines[0].endswith(" left")
    assert lines[2:] == [
        "job sorting-0: a worker died: killed",
        "sorting seed 0 failed: no label",
    ]


def test_one_live_table_on_a_terminal():
    last = shown(terminal=True).split("\x1b[2K")[-1]
    assert "4 of 5, about" in last
    assert last.count("sorting ") >= 2
    assert "jobs: sorting-0 running" in last


def test_a_coslow_is_counted_and_shown_like_a_cell():
    file = io.StringIO()
    with Progress(Console(file=file, width=200), {"sorting": 9.0}, total=1) as progress:
        progress.coslow(SIGNAL, 3.0)
    (line,) = file.getvalue().splitlines()
    assert line.startswith("  [  1/1] sorting")
    assert "CoS-Low +0.250  random -0.500  confidence 0.750" in line
    assert line.endswith("about 00:00 left")


def test_time_left_is_known_before_the_first_cell():
    progress = Progress(Console(quiet=True), SECONDS, total=3, lanes=2)
    assert progress.left() == "01:30"  # 10 + 60 + 110 s on two lanes


def test_the_start_of_ray_is_not_taken_for_the_pace(monkeypatch):
    monkeypatch.setattr("taskeff.run.progress.time.monotonic", lambda: 0.0)
    progress = Progress(Console(quiet=True), SECONDS, total=3)
    monkeypatch.setattr("taskeff.run.progress.time.monotonic", lambda: 300.0)
    progress.cell(ZERO, 0.5, 20.0)
    assert progress.left() == "05:40"  # twice the 60 + 110 s that are to go


def test_no_time_is_left_after_the_last_cell():
    progress = Progress(Console(quiet=True), SECONDS, total=3, lanes=2)
    for cell in SECONDS:
        progress.cell(cell, 0.5, 0.1)
    assert progress.left() == "00:00"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "00:00"), (59.9, "00:59"), (90, "01:30"), (3600, "1:00:00")]
)
def test_hours_only_where_there_are_any(seconds, said):
    assert clock(seconds) == said
