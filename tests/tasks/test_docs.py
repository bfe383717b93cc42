"""The task that docs/tasks.md writes is one that loads."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import datasets
import pytest

from taskeff.coslow.sheet import open_sheet
from taskeff.errors import DataError
from taskeff.tasks.metrics import METRICS
from taskeff.tasks.task import TaskSpec, load_spec, load_task
from tests.helpers import run_cli
from tests.tiny_model import WORDS

PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")


UNLABELLED, LABELLED = range(2)


def block(language: str, number: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[number]


@pytest.fixture
def tickets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "tickets.csv").write_text(block("csv", LABELLED), encoding="utf-8")
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


def test_an_unlabelled_file_comes_to_a_cos_low_with_the_commands_of_the_page(
    tmp_path, monkeypatch, capsys, tiny_model
):
    head, *texts = block("csv", UNLABELLED).splitlines()
    rows = [f"{text} and {word}" for word in WORDS[:20] for text in texts]
    (tmp_path / "tickets.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    def run(commands: str) -> str:
        said = ""
        for line in commands.replace("\\\n", " ").strip().splitlines():
            words = shlex.split(line.replace("MODEL", str(tiny_model)))[1:]
            code, out, err = run_cli(monkeypatch, capsys, *words)
            assert code == 0, err
            said += out
        return said

    *before, score = block("bash").replace("\\\n", " ").strip().splitlines()
    assert "task file: mine/task.yaml" in run("\n".join(before))
    spec = load_spec("mine/task.yaml")
    assert (spec.task, spec.doc_to_target) == ("tickets", None)
    sheet = open_sheet(Path("mine"))
    assert len(sheet.records) == 32
    for place, record in enumerate(sheet.records):
        assert record["text"].startswith(("The page", "There are", "It was"))
        sheet.write(place, record["choices"][place % 3])
    run(score)
    assert -1 <= json.loads(Path("mine/coslow.json").read_text())["cos_low"] <= 1
    told = run(block("bash", 1))
    assert "60 rows, 60 used" in told
    assert "  | The page says my password is wrong and" in told


def test_every_field_and_metric_is_explained():
    fields = PAGE.partition("## The fields")[2].partition("## Templates")[0]
    metrics = PAGE.partition("## Metrics")[2].partition("## When")[0]
    for field in TaskSpec.model_fields:
        assert f"`{field}`" in fields
    for metric in METRICS:
        assert f"`{metric}`" in metrics
