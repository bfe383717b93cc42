"""The task that docs/tasks.md writes is one that loads."""

from __future__ import annotations

import re
from pathlib import Path

import datasets
import pytest

from taskeff.errors import DataError
from taskeff.tasks.metrics import METRICS
from taskeff.tasks.task import TaskSpec, load_spec, load_task

PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL).group(1)


@pytest.fixture
def tickets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "tickets.csv").write_text(block("csv"), encoding="utf-8")
    (tmp_path / "tickets.yaml").write_text(block("yaml"), encoding="utf-8")
    return tmp_path


def test_the_example_loads(tickets: Path):
    task = load_task(load_spec(tickets / "tickets.yaml"), seed=0)
    rows = {e.text: e.target for e in (*task.train, *task.validation, *task.test)}
    assert rows == {
        "Subject: Cannot log in\nMessage: The page says my password is wrong": "accounts",
        "Subject: Charged twice\nMessage: There are two payments for one order": "billing",
        "Subject: Parcel is late\nMessage: It was due on Monday": "delivery",
    }


def test_an_empty_cell_is_an_unlabelled_row(tickets: Path):
    with (tickets / "tickets.csv").open("a", encoding="utf-8") as file:
        file.write("Where is it,I moved house,\n")
    with pytest.raises(DataError, match=r"tickets\.csv, line 5: doc_to_target renders an empty"):
        load_task(load_spec(tickets / "tickets.yaml"), seed=0)


def test_every_field_and_metric_is_explained():
    fields = PAGE.partition("## The fields")[2].partition("## Templates")[0]
    metrics = PAGE.partition("## Metrics")[2].partition("## When")[0]
    for field in TaskSpec.model_fields:
        assert f"`{field}`" in fields
    for metric in METRICS:
        assert f"`{metric}`" in metrics
