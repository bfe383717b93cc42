"""Foreign code raises what nobody expects: one line that says where, and at most a row is lost."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import jinja2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import transformers
from fsspec.implementations.local import LocalFileSystem

from taskeff.tasks import formats, prompts
from tests.helpers import said_by_cli

BAD = "the-bad-row"


class OddError(Exception):
    """Of no kind that is expected."""


def odd(*_, **__):
    raise OddError("boom\nand a second line")


def holds(value) -> bool:
    if isinstance(value, dict):
        return any(map(holds, value.values()))
    if isinstance(value, list | tuple):
        return any(map(holds, value))
    return isinstance(value, str) and BAD in value


def odd_on(call):
    """`call`, which fails on what holds the bad row's text."""

    def wrapped(self, given, *rest, **named):
        return odd() if holds(given) else call(self, given, *rest, **named)

    return wrapped


@pytest.fixture
def words(tmp_path) -> Path:
    rows = [{"text": f"row {i}" if i != 5 else BAD} for i in range(40)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "t.jsonl").write_text(lines)
    (tmp_path / "t.csv").write_text("text\n" + "".join(row["text"] + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    return tmp_path


def select(monkeypatch, capfd, model, folder, data):
    """(exit code, standard output, standard error) of a selection from a file."""
    words = ["select", "--model", model, "--out", folder / "out", "--data", folder / data]
    words += ["--text", "text", "--choices", "yes,no", "--n", 8, "--max-new-tokens", 2]
    return said_by_cli(monkeypatch, capfd, *words)


EVERYWHERE = {
    "template": (jinja2.Template, "render", "t.csv"),
    "tokenizer": (transformers.PreTrainedTokenizerBase, "__call__", "t.csv"),
    "chat template": (prompts, "render_chat", "t.csv"),
    "weights": (transformers.AutoModelForCausalLM, "from_pretrained", "t.csv"),
    "tokenizer files": (transformers.AutoTokenizer, "from_pretrained", "t.csv"),
    "configuration": (transformers.AutoConfig, "from_pretrained", "t.csv"),
    "csv": (csv, "reader", "t.csv"),
    "json": (formats._JSON.__class__, "decode", "t.jsonl"),
    "storage, read": (LocalFileSystem, "open", "t.csv"),
    "storage, list": (LocalFileSystem, "ls", "t.csv"),
    "storage, write": (os, "replace", "t.csv"),
    "parquet, read": (pq, "ParquetFile", "t.parquet"),
    "parquet, written": (pq, "write_table", "t.csv"),
}


@pytest.mark.parametrize("boundary", EVERYWHERE)
def test_any_exception_is_one_line(monkeypatch, capfd, tiny_model, words, boundary):
    owner, name, data = EVERYWHERE[boundary]
    monkeypatch.setattr(owner, name, odd)
    code, _, err = select(monkeypatch, capfd, tiny_model, words, data)
    assert code == 2
    said = [line for line in err.splitlines() if "boom" in line]
    assert len(said) == 1 and said[0].startswith("error: "), err
    assert "Traceback" not in err and not err.partition(said[0])[2].strip()


@pytest.mark.parametrize("boundary", ["template", "tokenizer", "json"])
def test_what_fails_on_one_row_costs_that_row(monkeypatch, capfd, tiny_model, words, boundary):
    owner, name, data = EVERYWHERE[boundary]
    monkeypatch.setattr(owner, name, odd_on(getattr(owner, name)))
    code, out, err = select(monkeypatch, capfd, tiny_model, words, data)
    assert code == 0, err
    line = 6 if data == "t.jsonl" else 7
    assert "40 rows, 39 used; left out: 1 without a confidence" in out
    assert f"{data}, line {line}: " in out and "OddError: boom" in out
