"""Killed or without room at any publishing, a verb goes on when called again, as if undisturbed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from taskeff.config_file import parse_config
from taskeff.coslow.handoff import write_lines
from taskeff.run.archive import export_results
from taskeff.run.plan import make_plan
from tests.helpers import run_values, write_config

pytestmark = pytest.mark.slow
KINDS = {"kill": "-9", "full": "2"}


def interrupted(kind: str, *verbs: tuple[object, ...]) -> list[int]:
    """How many calls each verb took; the last of each ended well."""
    words = [str(word) for verb in verbs for word in (*verb, "++")][:-1]
    command = [sys.executable, "-m", "tests.interrupted", kind, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    calls = [line.split() for line in done.stdout.splitlines()]
    assert len(calls) == len(verbs), done.stderr[-3000:]
    for codes in calls:
        assert codes[-1] == "0", done.stderr[-3000:]
        assert set(codes[:-1]) == {KINDS[kind]}, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    if kind == "full":
        assert done.stderr.count("the storage is full") == sum(map(len, calls)) - len(calls)
    return [len(codes) for codes in calls]


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(".partial")
    }


def test_select_and_score(tiny_model, tmp_path):
    (tmp_path / "rows.csv").write_text("text\n" + "".join(f"row {i}\n" for i in range(40)))
    words = ["select", "--model", tiny_model, "--data", tmp_path / "rows.csv", "--text", "text"]
    words += ["--choices", "yes,no", "--n", "8", "--max-new-tokens", "2", "--out"]
    out = tmp_path / "out"
    (calls,) = interrupted("kill", (*words, out))
    assert calls > 4
    ours = files(out)
    records = json.loads(ours["selection.json"])["rows"]
    handed_out = [json.loads(line) for line in ours["to_annotate.jsonl"].splitlines()]
    assert [one["text_hash"] for one in handed_out] == [one["text_hash"] for one in records]
    filled = [{**r, "label": ("yes", "no")[i % 2]} for i, r in enumerate(records)]
    (out / "to_annotate.jsonl").write_bytes(write_lines(filled))
    interrupted("full", ("score", "--model", tiny_model, "--out", out))
    assert {"coslow.json", "cosines.parquet"} <= files(out).keys()


def test_one_file_is_the_old_one_until_it_is_the_new_one(local_run, tiny_model, tmp_path):
    storage = tmp_path / "storage"
    shutil.copytree(local_run, storage)
    config = write_config(tmp_path, run_values(tiny_model, storage))
    plot, archive = tmp_path / "a.png", tmp_path / "cells.jsonl"
    for path in (plot, archive, storage / "tiny" / "report.html"):
        path.write_bytes(b"the old one")
    options = ("--family", "llama-3.1-8b-instruct", "--cos-low", "0.65", "--plot", plot)
    export = ("export", "-c", config, "--file", archive)
    interrupted("full", export, ("report", "-c", config), ("predict", *options))
    plan = make_plan(parse_config(run_values(tiny_model, storage), "test"))
    assert archive.read_bytes() == export_results(plan)
    assert (storage / "tiny" / "report.html").read_bytes().endswith(b"</html>")
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_import(local_run, tiny_model, tmp_path):
    source = make_plan(parse_config(run_values(tiny_model, local_run), "test"))
    lines = export_results(source).splitlines(keepends=True)
    archive = tmp_path / "cells.jsonl"
    archive.write_bytes(b"".join([lines[0], lines[-1]]))
    storage = tmp_path / "storage"
    config = write_config(tmp_path, run_values(tiny_model, storage))
    interrupted("kill", ("import", "-c", config, "--file", archive))
    target = make_plan(parse_config(run_values(tiny_model, storage), "test"))
    assert export_results(target) == archive.read_bytes()
