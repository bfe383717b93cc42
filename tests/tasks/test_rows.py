"""Rows one at a time: a bad one costs itself and says where it stands."""

import gzip
import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from taskeff.errors import DataError
from taskeff.tasks.examples import rows_at
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


def test_rows_to_leave_out_are_left_out_and_counted(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"{i}", "n": i}) + "\n" for i in range(5)))
    pool = PoolStream(spec(path, doc_to_keep="{{ n > 1 }}"), 0)
    assert [r.text for r in pool] == ["2", "3", "4"]
    assert pool.left_out == 2


SPLITS = st.sampled_from([{}, {"test_split": "test"}, {"validation_split": "dev"}])
SIZES = st.sampled_from([{}, {"test_size": 3}, {"test_size": 0.3, "validation_size": 2}])


@given(
    counts=st.tuples(st.integers(8, 60), st.integers(1, 9), st.integers(1, 9)),
    distinct=st.integers(8, 80),
    cap=st.none() | st.integers(1, 80),
    seeds=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    splits=st.tuples(SPLITS, SPLITS),
    sizes=SIZES,
    keep=st.booleans(),
)
def test_the_pool_of_a_stream_is_that_of_the_task(
    tmp_path_factory, counts, distinct, cap, seeds, splits, sizes, keep
):
    folder = tmp_path_factory.mktemp("pool")
    for name, count in zip(("train", "dev", "test"), counts, strict=True):
        texts = [f"{(i * 7 + len(name)) % distinct}" for i in range(count)]
        rows = [json.dumps({"text": text, "label": "a", "n": int(text)}) for text in texts]
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
    files = {name: str(folder / f"{name}.jsonl") for name in ("train", "dev", "test")}
    one = spec(
        "",
        dataset_kwargs={"data_files": files},
        doc_to_target="{{ label }}",
        doc_to_keep="{{ n % 5 > 0 }}" if keep else None,
        **{**splits[0], **splits[1], **sizes},
    )
    try:
        task = load_task(one, seeds[0])
    except DataError:
        assume(False)
    stream = PoolStream(one, seeds[0], cap, seeds[1])
    wanted = list(rows_at(task.train, task.pool_rows(cap, seeds[1])))
    assert [(row.id, row.text) for row in stream] == [(e.id, e.text) for e in wanted]
    assert stream.note is None
    tested = {e.text for e in (*task.validation, *task.test)}
    assert not tested & {row.text for row in stream}
    numbers = [row.index for row in stream]
    assert cap is not None or numbers == sorted(numbers)
    assert {n: row.values["text"] for n, row in stream.pick(numbers[:3]).items()} == {
        row.index: row.text for row in list(stream)[:3]
    }


def test_a_pool_too_small_beside_a_test_is_the_whole_split(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"text": f"{i}", "label": "a"}) for i in range(12)]
    path.write_text("\n".join(lines))
    one = spec(path, doc_to_target="{{ label }}")
    pool = PoolStream(one, 0, least=10)
    assert len(list(pool)) == 10 and pool.note is None and pool.held_out == 2
    pool = PoolStream(one, 0, least=11)
    assert [row.index for row in pool] == list(range(12))
    assert "10 rows are left" in pool.note and "the pool is all 12 rows" in pool.note
    unlabelled = PoolStream(spec(path), 0, cap=12)
    assert {row.index for row in unlabelled} == set(range(12)) and unlabelled.held_out == 0


def test_bad_rows_come_with_a_draw_too(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"{i}"}) + "\n" for i in range(30)) + "{\n")
    rows = list(PoolStream(spec(path), 0, 5))
    assert [row.where.rsplit(", ", 1)[1] for row in rows if row.error] == ["line 31"]
    assert len({row.text for row in rows if not row.error}) == 5


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
