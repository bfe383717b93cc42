"""A file of rows in place of a task file."""

from __future__ import annotations

import pytest
import yaml

from taskeff.errors import ConfigError, DataError
from taskeff.tasks.from_data import task_name, write_task
from taskeff.tasks.rows import PoolStream
from taskeff.tasks.spec import load_spec


def texts(path):
    return [row.text for row in PoolStream(load_spec(path), 0)]


@pytest.mark.parametrize("name", ["my rows.csv", "[v2] {x}.csv", "rows.tsv", "zeilen-\u00e4.jsonl"])
def test_the_task_file_reads_the_rows(tmp_path, name):
    data = tmp_path / name
    column = "Text der \u201eFrage\u201c"
    if name.endswith("jsonl"):
        data.write_text(f'{{"{column}": "0113"}}\n')
    else:
        data.write_text(f"n,{column}\n1,0113\n".replace(",", "\t" if "tsv" in name else ","))
    path = write_task(tmp_path / "a" / "b", str(data), column, ("yes", "no"))
    assert texts(path) == ["0113"]
    fields = yaml.safe_load(path.read_text())
    assert fields["doc_to_choice"] == ["yes", "no"]
    assert fields["description"] == "Answer with exactly one of these words: yes, no."
    assert "doc_to_target" not in fields
    assert str(tmp_path) not in path.read_text()


def test_a_template_joins_columns_and_an_instruction_is_kept(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\nx,y\n")
    path = write_task(tmp_path, str(tmp_path / "t.csv"), "{{a}}: {{b}}", instruction="Say it.")
    assert texts(path) == ["x: y"]
    assert load_spec(path).description == "Say it."


def test_the_same_again_is_taken_and_another_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\nx,y\n")
    for _ in range(2):
        write_task(tmp_path, str(tmp_path / "t.csv"), "a")
    with pytest.raises(ConfigError, match="says something else; give another --out"):
        write_task(tmp_path, str(tmp_path / "t.csv"), "b")


@pytest.mark.parametrize(
    ("data", "text", "choices", "message"),
    [
        ("t.xlsx", "a", (), "ending tells no format"),
        ("t.csv", "a", ("yes", "YES."), "count as the same answer"),
        ("t.csv", "a", ("yes", ""), "empty once normalised"),
        ("t.csv", "{{a", (), "template '{{a'"),
    ],
)
def test_what_cannot_be_a_task_is_said(tmp_path, data, text, choices, message):
    with pytest.raises(DataError, match=message):
        write_task(tmp_path, str(tmp_path / data), text, choices)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "name"), [("a/b c.csv", "b-c"), ("...csv", "task"), ("s3://b/x.jsonl", "x")]
)
def test_its_name_is_a_path_part(path, name):
    assert task_name(path) == name
