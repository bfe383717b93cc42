"""Files as people have them: read as they are meant, or one line that says what to do."""

from __future__ import annotations

import gzip
import io
import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from taskeff.errors import DataError
from taskeff.tasks.from_data import write_task
from taskeff.tasks.manifest import load_manifest
from taskeff.tasks.readers import format_of, read_file
from taskeff.tasks.rows import PoolStream
from taskeff.tasks.spec import load_spec

ROWS = [f"row {i}" for i in range(4)]
CSV = "text,x\n" + "".join(f"{row},{i}\n" for i, row in enumerate(ROWS))
LINES = "".join(json.dumps({"text": row}) + "\n" for row in ROWS)


def packed(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, CSV)
    return buffer.getvalue()


def parquet(*names: str) -> bytes:
    buffer = io.BytesIO()
    columns = [pa.array(ROWS) for _ in names]
    pq.write_table(pa.Table.from_arrays(columns, names=list(names)), buffer)
    return buffer.getvalue()


READ = {
    "with a mark": ("t.csv", "\ufeff" + CSV),
    "with a mark, lines": ("t.jsonl", "\ufeff" + LINES),
    "CR alone": ("t.csv", CSV.replace("\n", "\r")),
    "semicolons, a comma in a name": ("t.csv", CSV.replace(",", ";").replace("x\n", '"x, y"\n', 1)),
    "semicolons, a comma in a cell": ("t.csv", CSV.replace(",", ";").replace(";3", ";3,5")),
    "an index": ("t.csv", "".join(f"{i},{line}\n" for i, line in enumerate(CSV.splitlines()))),
    "compressed": ("t.csv.gz", gzip.compress(CSV.encode())),
    "an archive of one": ("t.csv.zip", packed("t.csv")),
    "an archive of macOS": ("t.csv.zip", packed("folder/", "folder/t.csv", "__MACOSX/._t.csv")),
    "blanks in a name": ("t.parquet", parquet("text", " x")),
    **{
        f"called {name}": (name, CSV)
        for name in ("a%20b.csv", "a#b.csv", "a?b.csv", "[x].csv", "*.csv", "ü😀.csv", "T.CSV")
    },
}
REFUSED = {
    "UTF-16": ("t.csv", CSV.encode("utf-16"), "is UTF-16; save it as UTF-8"),
    "UTF-16 without a mark": ("t.csv", CSV.encode("utf-16-le"), "begins with zero bytes"),
    "UTF-16, lines": ("t.jsonl", LINES.encode("utf-16-be"), "begins with zero bytes"),
    "a workbook": ("t.csv", packed("xl/workbook.xml"), "is a spreadsheet's own format or a zip"),
    "an old workbook": ("t.csv", b"\xd0\xcf\x11\xe0 ", "is a spreadsheet's own format; save"),
    "Parquet in name a CSV": ("t.csv", parquet("text"), "give its name the ending .parquet"),
    "compressed in secret": ("t.csv", gzip.compress(CSV.encode()), "give its name the ending .gz"),
    "not compressed": ("t.csv.gz", CSV, "cannot be read: Not a gzipped file"),
    "an archive of two": ("t.csv.zip", packed("a.csv", "b.csv"), r"holds 2 files \(a.csv, b.csv\)"),
    "two columns, CSV": ("t.csv", CSV.replace(",x", ",text"), "two columns are called 'text'"),
    "two columns, Parquet": ("t.parquet", parquet("a", "a"), "two columns are called 'a'"),
    "two fields": ("t.json", '[{"text": "a", "text": "b"}]', "entry 1: the field 'text' is there"),
}


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("what", READ)
def test_it_is_read(tmp_path, what):
    path = written(tmp_path, *READ[what])
    task = write_task(tmp_path / "out", str(path), "text")
    rows = list(PoolStream(load_spec(task), 0))
    assert [(row.text, row.error) for row in rows] == [(row, None) for row in ROWS]


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_one_line(tmp_path, what):
    name, content, message = REFUSED[what]
    path = written(tmp_path, name, content)
    with pytest.raises(DataError, match=f"{name}.*{message}") as error:
        list(read_file(str(path), format_of(name) or ""))
    assert "\n" not in str(error.value)


def test_a_field_that_is_there_twice_costs_its_line(tmp_path):
    path = written(tmp_path, "t.jsonl", '{"text": "a", "text": "b"}\n' + LINES)
    bad, *good = read_file(str(path), "json")
    assert bad.error == "the field 'text' is there twice; drop one"
    assert [row.values for row in good] == [{"text": row} for row in ROWS]


@pytest.mark.parametrize("header", [" text ,x", "Text,x", "text\u00a0,x"])
def test_a_column_that_is_almost_there_can_be_seen(tmp_path, header):
    path = written(tmp_path, "t.csv", CSV.replace("text,x", header))
    task = write_task(tmp_path / "out", str(path), "text")
    error = next(iter(PoolStream(load_spec(task), 0))).error
    name = header.partition(",")[0]
    shown = name if name == name.strip() else ascii(name)
    assert error == f"doc_to_text: no column 'text'; columns are: {shown}, x"


def test_a_folder_that_is_a_link_leads_back_to_the_data(tmp_path):
    path = written(tmp_path, "t.csv", CSV)
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "far" / "deep")
    task = write_task(tmp_path / "out", str(path), "text")
    assert len(list(PoolStream(load_spec(task), 0))) == len(ROWS)


TASK = "task: t\ndataset_path: csv\ndataset_kwargs: {data_files: t.csv}\ndoc_to_text: '{{text}}'\n"
FAULTS = {
    "a key twice": (TASK + "doc_to_text: x{{text}}\n", "line 5: 'doc_to_text' is there twice"),
    "a template without quotes": (TASK.replace("'", ""), "line 4: .*put a template, .* in quotes"),
    "a tab": (TASK + "\tx: 1\n", "line 5: "),
    "two documents": (TASK + "---\na: 1\n", "line 5: "),
    "UTF-16": (TASK.encode("utf-16"), "not UTF-8; save it as UTF-8"),
    "a number": (TASK.replace("t\n", "12\n", 1), "task: 12 is no text to YAML; write it in quotes"),
    "a date": (TASK + "description: 2020-01-01\n", "description: 2020-01-01 is no text to YAML"),
    "nothing": (TASK + "description: ~\n", "description: leave it out, or give it a text"),
    "a choice that is a number": (TASK + "doc_to_choice: [0, 1]\n", "0 is no text; write it"),
    "a choice with a blank": (TASK + "doc_to_choice: [' a', b]\n", "write 'a'"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_task_files_fault_is_one_line_with_its_mend(tmp_path, what):
    content, message = FAULTS[what]
    written(tmp_path, "t.csv", CSV)
    path = written(tmp_path, "t.yaml", content)
    with pytest.raises(DataError, match=f"t.yaml: .*{message}") as error:
        load_spec(path)
    assert "\n" not in str(error.value)


def test_a_manifests_fault_is_one_line(tmp_path):
    entry = yaml.safe_dump([{"name": "a", "source": "t.csv", "text_column": "text"}])
    path = written(tmp_path, "m.yaml", entry + "  name: b\n")
    with pytest.raises(
        DataError, match=r"m\.yaml: not YAML: line 4: 'name' is there twice"
    ) as error:
        load_manifest(str(path))
    assert "\n" not in str(error.value)
