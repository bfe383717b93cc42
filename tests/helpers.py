"""What several rooms' tests build on: a small run's configuration, the command line in-process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from taskeff.coslow.result import RESULT, TABLE
from taskeff.run.plan import Plan

TASKS = ("name_gender", "part_of_speech", "sentiment_words")
SELECTION: dict[str, Any] = {
    "rendered": False,
    "max_new_tokens": 4,
    "settings": {},
    "pool": {
        **dict.fromkeys(("rows", "rows_in"), 3),
        **dict.fromkeys(("duplicates", "left_out", "held_out", "beyond_cap", "escaped"), 0),
        "note": "",
    },
    "unscored": 0,
    "n_scored": 3,
    "candidates": 3,
    "problems": [],
    "mean_confidence": 0.5,
    "control": [],
}
"""What a selection holds beside its rows."""


def run_values(model: Path, storage: Path | str, **changes) -> dict:
    """A run of two calibration tasks and one held out, small enough for a test."""
    values = {
        "name": "tiny",
        "storage": str(storage),
        "model": {"path": str(model), "name": "tiny", "dtype": "float32"},
        "tasks": {"calibration": list(TASKS[:2]), "held_out": [TASKS[2]]},
        "training": {
            "budgets": [8, 32],
            "learning_rate": 3e-3,
            "epochs": 10,
            "max_steps": 40,
            "batch_size": 8,
        },
        "evaluation": {"test_cap": 30},
        "coslow": {"n_examples": 8, "pool_cap": 80, "max_new_tokens": 4, "rank": 4},
        "curve": {"cap": 32},
        "cluster": {"task_seeds_per_job": 2},
    }
    return {**values, **changes}


def publish_signal(plan: Plan, task: str, cos_low: float, about: float = 0.02) -> dict[str, Any]:
    """A made-up CoS-Low of the task, published as if it were measured."""
    result = dict.fromkeys(TABLE, 0.5) | {
        "task": task,
        "cos_low": cos_low,
        "cos_low_low": cos_low - about,
        "cos_low_high": cos_low + about,
        "random_cosine": 0.3,
        "mean_confidence": 0.7,
        "n_labels": 2,
        "n_pool": 80,
        "n_examples": 8,
        "seed": 0,
    }
    plan.folder(task).write_json(result, RESULT)
    return result


def markers(storage: Path) -> dict[str, int]:
    """Every published result of a run and when it was written."""
    run = storage / "tiny"
    found = (*run.glob("cells/**/result.json"), *run.glob("coslow/**/coslow.json"))
    return {str(path.relative_to(storage)): path.stat().st_mtime_ns for path in found}


def write_config(folder: Path, values: dict) -> Path:
    """`values` as a YAML file."""
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


TASK = {
    "task": "mine",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": "rows.jsonl"},
    "doc_to_text": "{{text}}",
    "doc_to_target": "{{label}}",
}
"""A task file over rows of `text` and `label`."""


def write_task_file(folder: Path, rows: Iterable[Mapping[str, Any]], **changes: Any) -> Path:
    """`mine.yaml` beside `rows` as JSON lines; a field that is changed to None is left out."""
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(lines, encoding="utf-8")
    values = {key: value for key, value in {**TASK, **changes}.items() if value is not None}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own, which must end well."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


def run_cli(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    """(exit code, standard output, standard error on one line) of `taskeff ARGUMENTS`."""
    code, out, err = said_by_cli(monkeypatch, capsys, *arguments)
    return code, out, " ".join(err.split())


def said_by_cli(monkeypatch, capture, *arguments: object) -> tuple[int, str, str]:
    """(exit code, standard output, standard error); `capture`: capsys, or capfd."""
    from taskeff.cli import main

    monkeypatch.setattr(sys, "argv", ["taskeff", *map(str, arguments)])
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capture.readouterr()
    return code, captured.out, captured.err
