"""Every verb says how many rows it read and used and why it left others out, and stores it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from taskeff.config_file import parse_config
from taskeff.run.driver import begin
from taskeff.run.inline import InProcess
from taskeff.run.plan import make_plan
from taskeff.run.ranking import rank
from tests.distributed import candidates as made
from tests.helpers import TASKS, run_cli, run_values, write_task_file

MARK = "one <|im_end|> two"
ESCAPED = "1 rows hold markers of the model's own"
SIGNAL = {"n_examples": 8, "max_new_tokens": 4, "rank": 4}


@pytest.fixture
def task(tmp_path) -> Path:
    """63 rows: one that repeats another, one that is not kept, one with the model's markers."""
    texts = [*(f"word {i}" for i in range(60)), "word 3", "drop", MARK]
    rows = [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(texts)]
    return write_task_file(
        tmp_path,
        rows,
        description="Answer a or b.",
        doc_to_keep="{{ text != 'drop' }}",
        doc_to_choice=["a", "b"],
        test_size=8,
        validation_size=4,
    )


@pytest.fixture
def cli(monkeypatch, capsys):
    def run(*arguments: object) -> str:
        code, out, err = run_cli(monkeypatch, capsys, *arguments)
        assert code == 0, err
        return " ".join(out.split())

    return run


def config(task, model, storage):
    values = run_values(model, storage, coslow=SIGNAL)
    values["tasks"] = {"calibration": [TASKS[0], str(task)]}
    return values


LEFT_OUT = {"that repeat another": 1, "by doc_to_keep": 1}
SAID = "63 rows, 61 used; left out: 1 that repeat another, 1 by doc_to_keep"


def test_select_and_score(cli, task, tiny_model, tmp_path):
    out = tmp_path / "out"
    whole = [*yaml.safe_load(task.read_text()).items()]
    task.write_text(yaml.safe_dump({k: v for k, v in whole if k != "doc_to_target"}))
    options = ("--model", tiny_model, "--out", out)
    said = cli("select", *options, "--task", task, "--n", 61, "--quantile", 1)
    assert f"pool: {SAID}" in said and f"note: {ESCAPED}" in said
    lines = [json.loads(line) for line in (out / "to_annotate.jsonl").read_text().splitlines()]
    (marked,) = (row for row in lines if "im_end" in row["text"])
    assert marked["text"] == MARK  # broken for the model alone: its hash is that of the source
    filled = [json.dumps({**row, "label": "a"}) for row in lines]
    (out / "to_annotate.jsonl").write_text("\n".join(filled))
    said = cli("score", *options)
    assert "labels: 61 rows, 61 used" in said and f"note: {ESCAPED}" in said
    stored = json.loads((out / "coslow.json").read_text())["rows"]
    assert stored == {"rows": 61, "used": 61, "left_out": {}, "escaped": 1}


def test_validate(cli, task, tiny_model, tmp_path):
    said = cli("validate", "--task", task, "--model", tiny_model)
    held = SAID.replace("61 used", "49 used") + ", 12 kept for validation and test"
    assert held in said
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config(task, tiny_model, tmp_path / "results")))
    said = cli("validate", "-c", path)
    assert f"rows: {SAID}" in said and f"note: {ESCAPED}" in said


def test_rank(task, tiny_model, tmp_path):
    console = Console(record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    manifest = made.write_manifest(
        tmp_path, [{"name": "mine", "source": "rows.jsonl", "text_column": "text"}]
    )
    family = made.family(tiny_model, tmp_path / "family")
    rank(made.rank_config(tiny_model, manifest, tmp_path / "out", family), InProcess(), console)
    assert "rows: 63 rows, 62 used; left out: 1 that repeat another" in console.export_text()
    (row,) = pq.read_table(tmp_path / "out" / "ranking.parquet").to_pylist()
    assert (row["rows_in"], row["rows"], row["duplicates"]) == (63, 62, 1)
    assert any(ESCAPED in warning for warning in row["warnings"])


def test_calibrate(task, tiny_model, tmp_path, local_run):
    parsed = parse_config(config(task, tiny_model, tmp_path / "results"), "test")
    console = Console(record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    plan = make_plan(parsed)
    begin(plan, parsed, console)
    said = console.export_text()
    assert f"task 'mine' ({task}): {SAID}" in said and f"note: {ESCAPED}" in said
    total = sum(account.rows for account in plan.accounts.values())
    assert f"rows: {total} read, {total - 2} used" in said
    stored = json.loads((local_run / "tiny" / "run.json").read_text())["rows"]
    assert set(stored) == set(TASKS)
    assert all(row["rows"] == row["used"] > 0 for row in stored.values())


def test_pilot(cli, task, tiny_model, tmp_path):
    out = tmp_path / "out"
    words = ("--model", tiny_model, "--task", task, "--out", out, "--budgets", 4)
    said = cli("pilot", *words, "training.max_steps=1", "evaluation.test_cap=4")
    assert SAID in said, said
    assert f"note: {ESCAPED}" in said
    stored = json.loads((out / "pilots.json").read_text())["rows"]
    assert stored == {"rows": 63, "used": 61, "left_out": LEFT_OUT, "escaped": 1}
