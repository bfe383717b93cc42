"""Whatever bytes a file holds: rows, labels, settings are read, or one line says what is wrong."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from taskeff.config_file import load_config
from taskeff.coslow.handoff import hand_off, read_labels, to_annotate
from taskeff.coslow.sheet import open_sheet
from taskeff.errors import TaskeffError
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.family_files import bundled_families
from taskeff.estimate.pilots import read_pilots
from taskeff.tasks.manifest import load_manifest
from taskeff.tasks.readers import format_of
from taskeff.tasks.rows import PoolStream
from taskeff.tasks.spec import TaskSpec, load_spec
from taskeff.tasks.task import Example, load_task
from tests.helpers import TASK, run_values

pytestmark = pytest.mark.timeout(300)
MANY = settings(
    max_examples=200,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

ROWS = [{"text": f"row {i}", "label": "ab"[i % 2]} for i in range(8)]
RECORDS = to_annotate(
    [Example(f"r{i}", row["text"]) for i, row in enumerate(ROWS)], [0.5] * 8, "ab"
)
SPEC = {
    **TASK,
    "dataset_path": "csv",
    "dataset_kwargs": {"data_files": "rows.csv"},
    "doc_to_choice": ["a", "b"],
}


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(as_json(row) + b"\n" for row in rows)


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()


def as_tsv(rows: list[dict[str, Any]]) -> bytes:
    return as_csv(rows, "\t")


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def as_yaml(value: Any) -> bytes:
    return yaml.safe_dump(value).encode()


def read_data(path: Path) -> None:
    given = SPEC | {
        "dataset_path": format_of(path.name),
        "dataset_kwargs": {"data_files": str(path)},
    }
    spec = TaskSpec.model_validate(given)
    for row in PoolStream(spec, 0, cap=5):
        assert row.text or row.error
    load_task(spec, 0)


def read_task(path: Path) -> None:
    spec = load_spec(path)
    if spec.dataset_path in ("csv", "json", "parquet"):
        list(PoolStream(spec, 0))


MANIFEST = [{"name": f"n{i}", "source": "rows.csv", "text_column": "text"} for i in range(2)]
PILOTS = {"pilots": [{"labels": n, "score": n / 100, "n_test": 200} for n in (50, 60)]}
FAMILY = min(bundled_families().values(), key=lambda path: path.stat().st_size)
# what reads it, the file's name, its content as it should be
READ: dict[str, tuple[Callable[[Path], Any], str, bytes]] = {
    "data csv": (read_data, "d.csv", as_csv(ROWS)),
    "data tsv": (read_data, "d.tsv", as_tsv(ROWS)),
    "data json": (read_data, "d.json", as_json(ROWS)),
    "data jsonl": (read_data, "d.jsonl", as_lines(ROWS)),
    "data parquet": (read_data, "d.parquet", as_parquet(ROWS)),
    **{
        f"labels {form}": (
            lambda path: read_labels(path, RECORDS),
            name,
            hand_off([{**r, "label": "a"} for r in RECORDS], form, "ab")[name],
        )
        for form, name in (
            ("jsonl", "to_annotate.jsonl"),
            ("csv", "to_annotate.csv"),
            ("label-studio", "to_annotate.json"),
        )
    },
    "manifest yaml": (lambda path: load_manifest(str(path)), "m.yaml", as_yaml(MANIFEST)),
    "manifest csv": (lambda path: load_manifest(str(path)), "m.csv", as_csv(MANIFEST)),
    "manifest jsonl": (lambda path: load_manifest(str(path)), "m.jsonl", as_lines(MANIFEST)),
    "pilots json": (read_pilots, "p.json", as_json(PILOTS)),
    "pilots csv": (read_pilots, "p.csv", as_csv(PILOTS["pilots"])),
    "calibration": (Calibration.load, "calibration.json", FAMILY.read_bytes()),
    "task": (read_task, "t.yaml", as_yaml(SPEC)),
    "run": (load_config, "run.yaml", as_yaml(run_values(Path("m"), Path("s")))),
    "selection": (lambda path: open_sheet(path.parent), "selection.json", as_json({"rows": []})),
}

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
trees = st.recursive(
    leaves, lambda t: st.lists(t, max_size=4) | st.dictionaries(st.text(max_size=6), t, max_size=4)
)
KEYS = sorted(
    {*SPEC, *RECORDS[0], *MANIFEST[0], *PILOTS["pilots"][0], "data", "annotations", "result"}
)
objects = st.dictionaries(st.sampled_from(KEYS), trees, max_size=5)
tables = st.lists(st.lists(st.text(max_size=6), max_size=4), max_size=5).map(
    lambda rows: "\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass")
)


@cache
def contents(good: bytes) -> st.SearchStrategy[bytes]:
    """Any bytes, any table, any JSON or YAML, and what should be there with some of it replaced."""

    def damaged(data: st.DataObject | Any) -> bytes:
        start, end, piece = data
        start, end = sorted((start % (len(good) + 1), end % (len(good) + 1)))
        return good[:start] + piece + good[max(start, min(end, start + 40)) :]

    offsets = st.integers(0, max(len(good), 1))
    marks = [*b'"[{},\n\0', b"\xff\xfe", b"1e999", b"NaN", b"null", b": &a"]
    pieces = st.binary(max_size=8) | st.sampled_from(marks).map(
        lambda mark: bytes([mark]) if isinstance(mark, int) else mark
    )
    return st.one_of(
        st.binary(max_size=80),
        tables,
        trees.map(as_json),
        st.lists(objects, max_size=3).map(as_json),
        objects.map(as_json),
        st.lists(objects, max_size=3).map(as_lines),
        st.tuples(offsets, offsets, pieces).map(damaged),
    )


def tried(read: Callable[[Path], Any], path: Path, content: bytes) -> TaskeffError | None:
    path.write_bytes(content)
    try:
        read(path)
    except TaskeffError as error:
        assert str(error).strip()
        return error
    return None


@pytest.mark.parametrize("what", READ)
def test_any_content_is_read_or_one_error(tmp_path, what):
    read, name, good = READ[what]
    (tmp_path / "rows.csv").write_bytes(as_csv(ROWS))

    @MANY
    @given(contents(good))
    def check(content):
        tried(read, tmp_path / name, content)

    check()


@pytest.mark.parametrize("opening", [b"[", b'{"a": ', b"- "])
@pytest.mark.parametrize("what", READ)
def test_what_nests_without_end_is_an_error_and_not_the_end(tmp_path, what, opening):
    read, name, _ = READ[what]
    error = tried(read, tmp_path / name, opening * 30_000)
    assert error is not None or name.endswith((".csv", ".tsv"))


@pytest.mark.parametrize("what", [what for what in READ if what != "selection"])
def test_what_should_be_there_is_read(tmp_path, what):
    read, name, good = READ[what]
    (tmp_path / "rows.csv").write_bytes(as_csv(ROWS))
    error = tried(read, tmp_path / name, good)
    assert error is None, error


PRINTABLE = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t=+-@'\",;|"),
    min_size=1,
    max_size=30,
).filter(lambda text: text == text.strip())


@MANY
@given(st.lists(PRINTABLE, min_size=2, max_size=4, unique=True))
def test_any_printable_cell_survives_every_reader_and_every_hand_off(tmp_path, cells):
    """From a file's cell to the prompt, and from there through the hand-off and back."""
    rows = [{"text": cell, "label": "n/a"} for cell in cells]
    forms = {"csv": as_csv, "tsv": as_tsv, "jsonl": as_lines, "json": as_json}
    for ending, written in (forms | {"parquet": as_parquet}).items():
        path = tmp_path / f"cells.{ending}"
        path.write_bytes(written(rows))
        kind = format_of(path.name)
        given = SPEC | {"dataset_path": kind, "dataset_kwargs": {"data_files": str(path)}}
        spec = TaskSpec.model_validate(given | {"doc_to_target": None, "doc_to_choice": None})
        assert [(row.text, row.error) for row in PoolStream(spec, 0)] == [(c, None) for c in cells]
    records = to_annotate(
        [Example(f"r{i}", c) for i, c in enumerate(cells)], [0.5] * len(cells), None
    )
    filled = [{**record, "label": cell} for record, cell in zip(records, cells)]
    for form in ("jsonl", "csv", "label-studio"):
        name, content = next(iter(hand_off(filled, form, None).items()))
        found = read_labels(name, records, content)
        assert [(one.text, one.target) for one in found] == [(c, c) for c in cells]
