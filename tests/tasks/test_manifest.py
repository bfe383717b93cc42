"""Manifests: the formats agree, a bad entry is its own problem."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from taskeff.errors import DataError
from taskeff.tasks.manifest import load_manifest
from taskeff.tasks.rows import PoolStream
from taskeff.tasks.task import load_spec

ROWS = [
    {"name": "suite", "task": "sentiment_words"},
    {
        "name": "mine",
        "source": "rows.jsonl",
        "text_column": "my text",
        "label_column": "y",
        "choices": "a|b",
        "description": "Say a or b.",
        "price": 0.25,
    },
    {"name": "pool", "source": "rows.jsonl", "doc_to_text": "T: {{ y }}"},
    {"name": "hub", "source": "org/data-set", "config": "en", "text_column": "q", "split": "pool"},
    {"name": "cloud", "source": "s3://bucket/rows.parquet", "text_column": "q"},
]


@pytest.fixture
def folder(tmp_path):
    rows = [{"my text": f"row {i}", "y": "ab"[i % 2]} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def written(folder, kind):
    path = folder / f"manifest.{kind}"
    columns = list(dict.fromkeys(key for row in ROWS for key in row))
    if kind == "yaml":
        path.write_text(yaml.safe_dump({"datasets": ROWS}))
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif kind == "csv":
        lines = [",".join(str(row.get(c, "")) for c in columns) for row in ROWS]
        path.write_text("\n".join([",".join(columns), *lines]) + "\n")
    else:
        pq.write_table(
            pa.Table.from_pylist(
                ROWS,
                pa.schema([(c, pa.float64() if c == "price" else pa.string()) for c in columns]),
            ),
            path,
        )
    return str(path)


def test_every_format_says_the_same(folder):
    manifests = [
        load_manifest(written(folder, kind)) for kind in ("yaml", "jsonl", "csv", "parquet")
    ]
    assert all(one == manifests[0] for one in manifests)
    suite, mine, pool, hub, cloud = manifests[0].entries
    assert (suite.name, suite.labelled) == ("suite", True)
    assert mine.price == 0.25
    assert mine.spec.doc_to_choice == ("a", "b")
    assert {row.text for row in PoolStream(mine.spec, 0, least=4)} == {f"row {i}" for i in range(4)}
    assert (pool.labelled, hub.labelled) == (False, False)
    assert [row.text for row in PoolStream(pool.spec, 0)] == ["T: a", "T: b"]
    assert (hub.spec.dataset_path, hub.spec.dataset_name) == ("org/data-set", "en")
    assert hub.spec.training_split == "pool"
    assert cloud.spec.dataset_kwargs == {"data_files": "s3://bucket/rows.parquet"}


BAD = [
    ({"name": "x"}, "give `text_column`, `doc_to_text` or `task`"),
    ({"name": "x", "text_column": "q"}, "give `source`"),
    ({"name": "../x", "task": "name_gender"}, "cannot name a folder"),
    ({"name": "x", "source": "gone.csv", "text_column": "q"}, "gone.csv does not exist"),
    ({"name": "x", "source": "a/b/c", "text_column": "q"}, "neither a hub id nor a file"),
    ({"name": "x", "source": "rows.jsonl", "text_columm": "q"}, "text_columm"),
    ({"name": "x", "task": "name_gendre"}, "did you mean 'name_gender'"),
    ({"name": "x", "task": "name_gender", "price": -1}, "price"),
    ({"name": "x", "task": "name_gender", "options": "{"}, "options"),
    ({"name": "good", "task": "name_gender"}, "given twice"),
    ("not a mapping", "expected the fields of a data set"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD)
def test_a_bad_entry_is_reported_and_the_rest_go_on(folder, bad, reason):
    path = folder / "m.yaml"
    path.write_text(yaml.safe_dump([{"name": "good", "task": "past_tense"}, bad]))
    found = load_manifest(str(path))
    assert [entry.name for entry in found.entries] == ["good"]
    (problem,) = found.problems
    assert reason in problem.reason
    assert problem.where == f"{path}, entry 2"
    with pytest.raises(DataError, match=r"m\.yaml, entry 2"):
        load_manifest(str(path), strict=True)


def test_a_manifest_without_a_usable_entry_is_an_error(folder):
    path = folder / "m.jsonl"
    path.write_text('{"name": "x"}\n{broken\n')
    with pytest.raises(DataError, match=r"no usable entry; .*line 1: give"):
        load_manifest(str(path))
    with pytest.raises(DataError, match=r"none\.yaml cannot be read: no such file"):
        load_manifest(str(folder / "none.yaml"))
    with pytest.raises(DataError, match=r"a manifest is \.yaml"):
        load_manifest(str(folder / "none.txt"))


def test_labels_come_from_the_source_a_file_or_nowhere(folder):
    (folder / "filled.csv").write_text("id,text,label\n")
    path = folder / "m.yaml"
    rows = [
        {"name": f"{labels}".replace(".", "-"), "task": "name_gender", "labels": labels}
        for labels in ("source", "none", "filled.csv")
    ]
    path.write_text(yaml.safe_dump(rows))
    entries = load_manifest(str(path)).entries
    assert [entry.labelled for entry in entries] == [True, False, False]
    assert [entry.labels for entry in entries] == [None, None, str(folder / "filled.csv")]


def test_a_task_file_is_read_once_however_many_name_it(folder, monkeypatch):
    read = []

    def counted(name):
        read.append(name)
        return load_spec(name)

    monkeypatch.setattr("taskeff.tasks.manifest.load_spec", counted)
    path = folder / "m.csv"
    path.write_text("name,task\n" + "".join(f"d{i},name_gender\n" for i in range(300)))
    assert len(load_manifest(str(path)).entries) == 300
    assert read == ["name_gender"]


def test_a_bad_row_of_a_table_is_a_problem_of_its_own(folder):
    path = folder / "m.csv"
    path.write_text("name,task\ngood,name_gender\nbad,name_gender,more\nlast,name_gender\n")
    found = load_manifest(str(path))
    assert [entry.name for entry in found.entries] == ["good", "last"]
    (problem,) = found.problems
    assert problem.where == f"{path}, line 3" and "3 cells under 2 columns" in problem.reason


def test_a_task_keeps_its_splits_unless_it_is_read_from_elsewhere(folder):
    values = {
        "task": "mine",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"train": "rows.jsonl", "test": "rows.jsonl"}},
        "test_split": "test",
        "doc_to_text": "{{ doc['my text'] }}",
        "doc_to_target": "{{ y }}",
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(values))
    entries = [
        {"name": "same", "task": "mine.yaml"},
        {"name": "other", "task": "mine.yaml", "source": "rows.jsonl"},
    ]
    (folder / "m.yaml").write_text(yaml.safe_dump(entries))
    same, other = load_manifest(str(folder / "m.yaml")).entries
    assert (same.spec.test_split, other.spec.test_split) == ("test", None)
    assert [row.text for row in PoolStream(other.spec, 0, least=4)] == [
        f"row {i}" for i in range(4)
    ]
    assert list(PoolStream(same.spec, 0)) == []
