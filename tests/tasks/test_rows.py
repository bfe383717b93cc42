"""Rows one at a time: a bad one costs itself and says where it stands."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taskeff.errors import DataError
from taskeff.tasks.rows import PoolStream
from taskeff.tasks.source import source_rows, source_stamp
from taskeff.tasks.task import TaskSpec, load_task


def spec(path, kind="json", **fields):
    values = {
        "task": "t",
        "dataset_path": kind,
        "dataset_kwargs": {"data_files": str(path)},
        "doc_to_text": "{{ text }}",
    }
    return TaskSpec.model_validate({**values, **fields})


def test_a_bad_line_costs_itself(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = ['{"text": "a"}', "{broken", "", "[1]", '{"label": "x"}', '{"text": "b"}']
    path.write_bytes("\n".join(lines).encode() + b'\n{"text": "\xff"}\n')
    rows = list(PoolStream(spec(path), 0))
    assert [(r.index, r.text) for r in rows if not r.error] == [(0, "a"), (4, "b")]
    bad = {r.where: r.error for r in rows if r.error}
    assert list(bad) == [f"{path}, line {n}" for n in (2, 4, 5, 7)]
    assert "not JSON" in bad[f"{path}, line 2"]
    assert "'text'" in bad[f"{path}, line 5"]


def test_repeated_texts_are_left_out_and_counted(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"{i % 4}"}) + "\n" for i in range(10)))
    pool = PoolStream(spec(path), 0)
    assert [r.id for r in pool] == [f"train-{i}" for i in range(4)]
    assert pool.duplicates == 6
    assert len(list(pool)) == 4
    assert pool.duplicates == 6


def test_rows_to_leave_out_are_left_out(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"{i}", "n": i}) + "\n" for i in range(4)))
    assert [r.text for r in PoolStream(spec(path, doc_to_keep="{{ n > 1 }}"), 0)] == ["2", "3"]


def test_single_rows_can_be_found_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"{i}"}) + "\n" for i in range(9)))
    found = PoolStream(spec(path), 0).pick([7, 2])
    assert {n: row.values for n, row in found.items()} == {2: {"text": "2"}, 7: {"text": "7"}}


def test_a_changed_file_has_another_stamp(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n')
    before = source_stamp(spec(path))
    assert source_stamp(spec(path)) == before
    path.write_text('{"text": "abc"}\n')
    assert source_stamp(spec(path)) != before


def test_a_source_that_cannot_be_read_is_one_error_without_credentials(tmp_path):
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' * 9999)[:40])
    with pytest.raises(DataError, match=r"cut.jsonl.gz cannot be read: Compressed file ended"):
        list(source_rows(spec(tmp_path / "cut.jsonl.gz"), "train", 0))
    with pytest.raises(DataError) as caught:
        source_stamp(spec("nosuch://me:secret@host/rows.jsonl"))
    assert "secret" not in str(caught.value)
