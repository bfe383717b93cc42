"""Small files that would become huge: an error within bounds, and what is merely large loads."""

from __future__ import annotations

import csv
import gzip
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taskeff.config_file import load_config
from taskeff.errors import TaskeffError
from taskeff.tasks import formats, manifest, readers
from taskeff.tasks.manifest import load_manifest
from taskeff.tasks.readers import read_file
from taskeff.tasks.spec import load_spec
from taskeff.yaml_file import MOST_BYTES, MOST_REPEATED, parsed_yaml, read_yaml


def nested(link: str) -> str:
    """Nine aliases of nine aliases of ...: half a billion values in a kilobyte."""
    lines = ["a0: &a0 {x0: 1, x1: 2, x2: 3, x3: 4, x4: 5, x5: 6, x6: 7, x7: 8, x8: 9}"]
    for level in range(1, 9):
        lines.append(f"a{level}: &a{level} {link % ', '.join([f'*a{level - 1}'] * 9)}")
    return "\n".join(lines)


ALIASES = {
    "lists": nested("[%s]"),
    "merged": nested("{<<: [%s]}"),
    "endless": "a: &a [*a]",
    "endless merge": "a: &a {<<: *a}",
}
READ = {"run": load_config, "task": load_spec, "manifest": lambda path: load_manifest(str(path))}


@pytest.mark.parametrize("kind", ALIASES)
@pytest.mark.parametrize("what", READ)
def test_aliases_and_depth_of_yaml(tmp_path, what, kind):
    path = tmp_path / "x.yaml"
    path.write_text(ALIASES[kind])
    tracemalloc.start()
    with pytest.raises(TaskeffError, match=r"x\.yaml.*(repeat more than|nested too deeply)"):
        READ[what](path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 20e6


@pytest.mark.parametrize("what", READ)
@pytest.mark.parametrize("text", ["[" * 500 + "]" * 500, "[" * 100_000, "{a: " * 100_000])
def test_depth_of_yaml(tmp_path, what, text):
    path = tmp_path / "x.yaml"
    path.write_text(f"datasets: {text}")
    with pytest.raises(TaskeffError, match=r"x\.yaml"):
        READ[what](path)


def test_aliases_as_people_use_them():
    found = parsed_yaml(b"a: &a {x: 1}\nb: {<<: *a, y: [*a, *a]}")
    assert found["b"] == {"x": 1, "y": [{"x": 1}] * 2}
    many = f"a: &a 1\nb: [{', '.join(['*a'] * MOST_REPEATED)}]"
    assert len(parsed_yaml(many.encode())["b"]) == MOST_REPEATED


def test_size_of_yaml(tmp_path):
    path = tmp_path / "x.yaml"
    with open(path, "wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(TaskeffError, match="64 MiB of YAML"):
        read_yaml(path)
    for read in (load_spec, load_config):
        with pytest.raises(TaskeffError, match=r"x\.yaml.*64 MiB of YAML"):
            read(path)


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(formats, "LONGEST", 1000)
    monkeypatch.setattr(formats, "WHOLE", 5000)
    monkeypatch.setattr(formats, "PIECE", 100)
    monkeypatch.setattr(formats, "COLUMNS", 50)
    before = csv.field_size_limit(1000)
    yield
    csv.field_size_limit(before)


def rows(path: Path, content: bytes, **options):
    path.write_bytes(content)
    return list(read_file(str(path), readers.format_of(str(path)) or "", options))


LONG = "x" * 3000


@pytest.mark.parametrize(
    ("name", "content", "options", "said"),
    [
        ("a.csv", f"text\n{LONG}\n", {}, "line 2 has more than 1,000 characters"),
        ("a.csv", LONG, {}, "line 1 has more than 1,000 characters"),
        ("a.jsonl", f'{{"t": 1}}\n{{"t": "{LONG}"}}\n', {}, "line 2 has more than 1,000"),
        ("a.json", f'[\n{{"t": 1}},\n{{"t":\n"{LONG}"}}]', {}, "entry 2 has more than 1,000"),
        ("a.json", f'{{"rows": [1, "{LONG * 2}"]}}', {"field": "rows"}, "more than 5,000"),
        ("a.csv", ",".join(f"c{i}" for i in range(51)), {}, "51 columns, more than 50"),
    ],
)
def test_lines_entries_and_columns(tmp_path, short, name, content, options, said):
    with pytest.raises(TaskeffError, match=rf"{name}.*{said}"):
        rows(tmp_path / name, content.encode(), **options)


def test_what_costs_one_row_only(tmp_path, short):
    many = json.dumps({f"c{i}": i for i in range(51)})
    found = rows(tmp_path / "a.jsonl", f'{many}\n{{"t": "a"}}\n'.encode())
    assert found[0].error and "51 fields" in found[0].error
    assert found[1].values == {"t": "a"}
    found = rows(tmp_path / "a.jsonl", b'{"t": ' + b"[" * 400 + b"]" * 400 + b'}\n{"t": "a"}\n')
    assert found[0].error and found[1].values == {"t": "a"}
    lines = "\n".join(f"row {i}" for i in range(200))
    found = rows(tmp_path / "a.csv", f'text,n\n"{lines}",1\n'.encode())
    assert found[0].error and "quote that is not closed" in found[0].error


def test_columns_of_parquet(tmp_path, short):
    pq.write_table(pa.table({f"c{i}": [1] for i in range(51)}), tmp_path / "a.parquet")
    with pytest.raises(TaskeffError, match=r"a\.parquet.*51 columns"):
        list(read_file(str(tmp_path / "a.parquet"), "parquet"))


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz"])
def test_what_unpacks(tmp_path, monkeypatch, name):
    row = b"a line\n" if "csv" in name else b'{"text": "a line"}\n'
    head = b"text\n" if "csv" in name else b""
    packed = gzip.compress(head + row * 30_000)
    (tmp_path / name).write_bytes(packed)
    kind = readers.format_of(name) or ""
    assert len(list(read_file(str(tmp_path / name), kind))) == 30_000
    monkeypatch.setattr(readers, "INFLATED", 100_000)
    monkeypatch.setattr(readers, "RATIO", 100)
    count = 0
    with pytest.raises(TaskeffError, match=rf"{name}.*unpacks to more than"):
        for _ in read_file(str(tmp_path / name), kind):
            count += 1
    assert count < 30_000
    monkeypatch.setattr(readers, "RATIO", 1000)
    assert len(list(read_file(str(tmp_path / name), kind))) == 30_000


def entries(path: Path, n: int) -> str:
    lines = (f"n{i},org/data-{i},text\n" for i in range(n))
    path.write_text("name,source,text_column\n" + "".join(lines))
    return str(path)


@pytest.mark.slow
def test_a_manifest_of_a_hundred_thousand_entries_loads(tmp_path):
    found = load_manifest(entries(tmp_path / "m.csv", 100_000))
    assert len(found.entries) == 100_000 and not found.problems


def test_entries_of_a_manifest(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "MOST_ENTRIES", 5)
    assert len(load_manifest(entries(tmp_path / "m.csv", 5)).entries) == 5
    with pytest.raises(TaskeffError, match=r"m\.csv: more than 5 entries"):
        load_manifest(entries(tmp_path / "m.csv", 6))
