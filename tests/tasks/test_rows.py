"""Rows one at a time: a bad one costs itself and says where it stands."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taskeff.errors import DataError
from taskeff.tasks.rows import PoolStream, find_rows, source, source_stamp
from taskeff.tasks.task import TaskSpec, load_pool


def spec(path, kind="json", **fields):
    values = {
        "task": "t",
        "dataset_path": kind,
        "dataset_kwargs": {"data_files": str(path)},
        "doc_to_text": "{{ text }}",
        "doc_to_target": "{{ label }}",
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


def test_csv_rows_with_too_many_cells_or_other_bytes_are_named(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'text,label\n"two\nlines",1\na,b,c\n\xffz,2\nlast,3\n')
    rows = list(source(spec(path, "csv"), 0))
    assert [r.where.rsplit(", ", 1)[1] for r in rows] == [f"line {n}" for n in (3, 4, 5, 6)]
    assert rows[0].values == {"text": "two\nlines", "label": 1}
    assert rows[1].error == "3 cells under 2 columns; quote the commas"
    assert rows[2].error == "not UTF-8"


@pytest.mark.parametrize(
    ("cell", "value"),
    [("1", 1), ("01", "01"), ("1.50", "1.50"), ("1.5", 1.5), ("True", True), ("", None)],
)
def test_csv_cells_become_values_only_where_they_render_the_same(tmp_path, cell, value):
    path = tmp_path / "rows.csv"
    path.write_text(f"text,label\nx,{cell}\n")
    (row,) = source(spec(path, "csv"), 0)
    assert row.values == {"text": "x", "label": value}


def test_every_format_gives_the_rows_that_datasets_gives(tmp_path):
    rows = [{"text": f"row {i}", "label": i % 3} for i in range(7)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "a.csv").write_text(
        "text,label\n" + "".join(f"row {i},{i % 3}\n" for i in range(7))
    )
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name, kind in [
        ("a.jsonl", "json"),
        ("a.json", "json"),
        ("a.jsonl.gz", "json"),
        ("a.csv", "csv"),
        ("a.parquet", "parquet"),
    ]:
        one = spec(tmp_path / name, kind)
        assert [r.values for r in source(one, 0)] == rows, name
        ours = [(r.id, r.text) for r in PoolStream(one, 0)]
        assert ours == [(e.id, e.text) for e in load_pool(one, 0)], name


def test_repeated_texts_are_left_out_and_counted(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"{i % 4}"}) + "\n" for i in range(10)))
    pool = PoolStream(spec(path), 0)
    assert [r.id for r in pool] == [f"train-{i}" for i in range(4)]
    assert pool.duplicates == 6
    assert len(list(pool)) == 4
    assert pool.duplicates == 6


def test_a_capped_pool_is_a_seeded_draw(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"{i}"}) + "\n" for i in range(100)))

    def drawn(seed):
        return [r.index for r in PoolStream(spec(path), seed, 10)]

    assert drawn(0) == drawn(0) == sorted(drawn(0))
    assert len(set(drawn(0))) == 10
    assert drawn(0) != drawn(1)


def test_rows_to_leave_out_are_left_out(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"{i}", "n": i}) + "\n" for i in range(4)))
    assert [r.text for r in PoolStream(spec(path, doc_to_keep="{{ n > 1 }}"), 0)] == ["2", "3"]


def test_single_rows_can_be_found_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"{i}"}) + "\n" for i in range(9)))
    found = find_rows(spec(path), 0, [7, 2])
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
    with pytest.raises(DataError, match=r"cut.jsonl.gz cannot be read"):
        list(source(spec(tmp_path / "cut.jsonl.gz"), 0))
    with pytest.raises(DataError) as caught:
        source_stamp(spec("nosuch://me:secret@host/rows.jsonl"))
    assert "secret" not in str(caught.value)
