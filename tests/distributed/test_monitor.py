"""What the driver shows of a grid: no Ray."""

import io
import logging

import pytest
from rich.console import Console

from taskeff.distributed.monitor import Progress
from taskeff.distributed.reports import reason, row_log
from taskeff.finetune.cells import Cell
from taskeff.storage import Store

CELLS = {Cell("sorting", budget, 0): float(10 + budget) for budget in (0, 50, 100)}


def result(budget: int) -> dict:
    return {"task": "sorting", "budget": budget, "seed": 0, "score": 0.5, "seconds": 12.0}


def shown(terminal: bool) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=120, color_system=None)
    with Progress(console, CELLS, total=5, done=2, lanes=2) as progress:
        progress.job("sorting-0", "running")
        progress.cell(result(0))
        progress.cell(result(0))  # reported again after a restart
        progress.cell(result(50))
        progress.say("job sorting-0: a worker died:", "killed", "yellow")
    assert progress.done == 4
    return file.getvalue()


def test_a_line_per_cell_where_there_is_no_terminal():
    lines = shown(terminal=False).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("  [  3/5] sorting")
    assert "score 0.500" in lines[0]
    assert "left" in lines[0]
    assert lines[2] == "job sorting-0: a worker died: killed"


def test_one_live_table_on_a_terminal():
    last = shown(terminal=True).split("\x1b[2K")[-1]
    assert "4 of 5 cells, about" in last
    assert last.count("sorting ") >= 2
    assert "jobs: sorting-0 running" in last


def test_time_left_is_known_before_the_first_cell():
    progress = Progress(Console(quiet=True), CELLS, total=3, done=0, lanes=2)
    assert progress.left() == "01:30"  # 10 + 60 + 110 s on two lanes


def test_the_start_of_ray_is_not_taken_for_the_pace(monkeypatch):
    monkeypatch.setattr("taskeff.distributed.monitor.time.monotonic", lambda: 0.0)
    progress = Progress(Console(quiet=True), CELLS, total=3, done=0, lanes=1)
    monkeypatch.setattr("taskeff.distributed.monitor.time.monotonic", lambda: 300.0)
    progress.cell({**vars(next(iter(CELLS))), "score": 0.5, "seconds": 20.0})
    assert progress.left() == "05:40"  # twice the 60 + 110 s that are to go


def test_no_time_is_left_after_the_last_cell():
    progress = Progress(Console(quiet=True), CELLS, total=3, done=0, lanes=2)
    for cell in CELLS:
        progress.cell({**vars(cell), "score": 0.5, "seconds": 0.1})
    assert progress.left() == "00:00"


def test_a_rows_log_holds_what_it_said_and_how_it_ended(tmp_path):
    store = Store(str(tmp_path))
    with pytest.raises(ValueError, match="broken"), row_log(store, "sorting-0"):
        logging.getLogger("taskeff.curves").info("budget 50")
        raise ValueError("broken")
    (name,) = store.names("logs", "sorting-0")
    text = store.read_bytes("logs", "sorting-0", name).decode()
    assert "INFO taskeff.curves: budget 50" in text
    assert text.rstrip().endswith("ValueError: broken")
    with row_log(store, "silent-0"):
        pass
    assert not store.names("logs", "silent-0")


def test_the_reason_is_the_last_line_that_says_something():
    error = RuntimeError("Training failed\n  File x\nValueError: no label\n\n")
    assert reason(error) == "ValueError: no label"
    assert reason(RuntimeError()) == "RuntimeError"
