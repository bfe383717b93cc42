"""Results that travel in a file are not measured again, and are never taken for others."""

import json
import shutil

import pytest
from rich.console import Console

from taskeff.config_file import parse_config
from taskeff.errors import DataError
from taskeff.run.archive import Imported, export_results, import_results
from taskeff.run.driver import calibrate
from taskeff.run.inline import InlineExecutor
from taskeff.run.plan import make_plan
from tests.helpers import run_cli, run_values, write_config

QUIET = Console(quiet=True)


def plan(tiny_model, storage, **changes):
    return make_plan(parse_config({**run_values(tiny_model, storage), **changes}, "test"))


def test_an_imported_run_is_finished(local_run, tiny_model, tmp_path, monkeypatch, capsys):
    archive = tmp_path / "cells.jsonl"
    source = write_config(tmp_path, run_values(tiny_model, local_run))
    assert run_cli(monkeypatch, capsys, "export", "-c", source, "--file", archive)[0] == 0
    storage = tmp_path / "elsewhere"
    target = write_config(tmp_path, run_values(tiny_model, storage))
    code, out, _ = run_cli(monkeypatch, capsys, "import", "-c", target, "--file", archive)
    assert code == 0 and "12 results taken over, 0 were" in out
    monkeypatch.setattr("taskeff.run.inline.measure", None)
    monkeypatch.setattr("taskeff.run.inline.Worker", None)
    calibrate(parse_config(run_values(tiny_model, storage), "test"), InlineExecutor, QUIET)
    ours, theirs = (s / "tiny/calibration.json" for s in (storage, local_run))
    assert ours.read_bytes() == theirs.read_bytes()
    again = import_results(plan(tiny_model, storage), archive.read_bytes(), "cells.jsonl")
    assert again == Imported(added=0, known=12, foreign=0)
    assert export_results(plan(tiny_model, storage)) == archive.read_bytes()


def test_an_unfinished_run_gives_what_it_has(local_run, tiny_model, tmp_path):
    shutil.copytree(local_run, tmp_path, dirs_exist_ok=True)
    for result in (tmp_path / "tiny/cells/task=name_gender").glob("**/result.json"):
        result.unlink()
    records = [json.loads(x) for x in export_results(plan(tiny_model, tmp_path)).splitlines()]
    found = [(r["kind"], r["task"]) for r in records]
    assert found[:6] == [("cell", "part_of_speech")] * 3 + [("cell", "sentiment_words")] * 3
    assert [kind for kind, _ in found[6:]] == ["coslow"] * 3


def test_results_of_other_settings_are_not_taken(local_run, tiny_model, tmp_path):
    data = export_results(plan(tiny_model, local_run))
    other = plan(tiny_model, tmp_path, evaluation={"test_cap": 29}, coslow={"n_examples": 9})
    assert import_results(other, data, "x") == Imported(added=0, known=0, foreign=12)
    fewer = run_values(tiny_model, tmp_path)["tasks"]["calibration"][:1]
    narrowed = plan(tiny_model, tmp_path, tasks={"calibration": fewer})
    assert import_results(narrowed, data, "x") == Imported(added=4, known=0, foreign=8)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[1]",
        '{"result": {}}',
        '{"kind": "cell", "result": 1}',
        '{"kind": "coslow", "task": [], "selection": 1, "hash": 1, "result": {}}',
    ],
)
def test_a_line_that_is_no_result(tiny_model, tmp_path, line):
    with pytest.raises(DataError, match="x, line 1"):
        import_results(plan(tiny_model, tmp_path), line.encode(), "x")
