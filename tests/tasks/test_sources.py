"""Where rows may come from: known protocols, a manifest's folder, a hub data set's own files."""

import json

import pytest

from taskeff.errors import DataError, StorageError
from taskeff.storage import Store
from taskeff.tasks.manifest import load_manifest
from taskeff.tasks.readers import expanded, file_stamp, read_file
from taskeff.tasks.source import source_rows
from taskeff.tasks.spec import TaskSpec

SECRET = "planted-in-the-environment"
REFUSED = [
    "reference://x.csv",
    "simplecache::file:///etc/hostname",
    "zip://a.csv::file:///tmp/a.zip",
    "file::reference://a",
    "ssh://host/x.csv",
    "sftp://host/x.csv",
    "ftp://host/x.csv",
    "http://169.254.169.254/latest.csv",
    "data:text/csv;base64,YQ==",
    "github://a:b@main/x.csv",
    "jupyter://host/x.csv",
    "tar://x.csv",
    "dask://x.csv",
]


@pytest.mark.parametrize("uri", REFUSED)
def test_only_known_protocols_are_opened(uri, monkeypatch):
    monkeypatch.setenv("PLANTED", SECRET)
    refused = r"(chains \(::\)|: locations) are not read"
    for reads in (
        lambda: list(read_file(uri, "csv")),
        lambda: file_stamp(uri),
        lambda: expanded(f"{uri}*") if "://" in uri else file_stamp(uri),
        lambda: load_manifest(uri if uri.endswith(".csv") else f"{uri}.csv"),
    ):
        with pytest.raises(DataError, match=refused):
            reads()
    with pytest.raises(StorageError, match=refused):
        Store(uri)


@pytest.fixture
def folder(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for one in (inside, outside):
        one.mkdir()
        (one / "rows.csv").write_text("text,label\nx,y\n")
        task = {"task": "t", "dataset_path": "csv", "doc_to_text": "{{text}}"}
        for name, files in (("own", "rows.csv"), ("other", str(outside / "rows.csv"))):
            values = {**task, "dataset_kwargs": {"data_files": files}}
            (one / f"{name}.yaml").write_text(json.dumps(values))
    (inside / "link.csv").symlink_to(outside / "rows.csv")
    return inside


@pytest.mark.parametrize(
    "entry",
    [
        {"source": "../outside/rows.csv"},
        {"source": "../outside/*.csv"},
        {"source": "link.csv"},
        {"source": "l*.csv"},
        {"source": "rows.csv", "labels": "../outside/rows.csv"},
        {"task": "../outside/own.yaml"},
        {"task": "other.yaml"},
        {"source": "OUTSIDE/rows.csv"},
    ],
)
def test_a_manifest_reads_below_its_own_folder(folder, entry):
    outside = str(folder.parent / "outside")
    entry = {key: value.replace("OUTSIDE", outside) for key, value in entry.items()}
    if "source" in entry:
        entry["text_column"] = "text"
    fine = {"name": "fine", "source": "rows.csv", "text_column": "text"}
    path = folder / "m.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in (fine, {"name": "a", **entry})))
    found = load_manifest(str(path))
    assert [one.name for one in found.entries] == ["fine"]
    assert "is outside the manifest's folder" in found.problems[0].reason
    allowed = load_manifest(str(path), allow_local=[outside])
    assert [one.name for one in allowed.entries] == ["fine", "a"]


def test_a_folder_of_this_machine_is_no_hub_id(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    path = folder / "m.jsonl"
    path.write_text(json.dumps({"name": "a", "source": "outside", "text_column": "text"}))
    with pytest.raises(DataError, match="outside the manifest's folder"):
        load_manifest(str(path))


@pytest.mark.parametrize(
    "options",
    [
        {"data_files": "/etc/hostname"},
        {"data_files": {"train": ["a.csv", "../b.csv"]}},
        {"data_files": "reference://x"},
        {"data_dir": "https://host/x"},
        {"cache_dir": "/tmp/x"},
        {"storage_options": {}},
        {"token": "x"},
    ],
)
def test_a_hub_data_set_reads_its_own_files(options):
    with pytest.raises(ValueError, match=r"dataset_kwargs: .*(is none of|is no file of)"):
        TaskSpec(task="t", dataset_path="a/b", dataset_kwargs=options, doc_to_text="{{x}}")


@pytest.mark.parametrize("reader", ["text", "arrow", "imagefolder"])
def test_readers_of_other_formats_are_no_data_sets(reader):
    spec = TaskSpec(
        task="t", dataset_path=reader, dataset_kwargs={"data_files": "x"}, doc_to_text="{{text}}"
    )
    with pytest.raises(DataError, match="a reader of its own, not a data set"):
        next(source_rows(spec, "train", 0))


LONG = "4929-1234-5678-9012 " * 20


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ({"label": LONG}, {"doc_to_target": "{{label}}", "doc_to_choice": ("a", "b")}),
        ({"keep": LONG}, {"doc_to_target": "{{text}}", "doc_to_keep": "{{keep}}"}),
        ({"n": LONG}, {"doc_to_target": "{{ '%d' % n }}"}),
        ({"n": LONG}, {"doc_to_target": "{{ {'a': 1}[n] }}"}),
        ({LONG + str(k): "x" for k in range(50)}, {"doc_to_target": "{{missing}}"}),
        ({"held": {LONG + str(k): "x" for k in range(50)}}, {"doc_to_target": "{{held}}"}),
    ],
)
def test_an_error_quotes_no_more_than_a_short_cell(tmp_path, row, fields):
    from taskeff.tasks.rows import render_row

    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "private words", **row}))
    spec = TaskSpec(
        task="t",
        dataset_path="json",
        dataset_kwargs={"data_files": str(tmp_path / "rows.jsonl")},
        doc_to_text="{{text}}",
        **fields,
    )
    (raw,) = source_rows(spec, "train", 0)
    with pytest.raises(DataError) as caught:
        render_row(spec, raw)
    said = str(caught.value)
    assert LONG[:205] not in said
    assert len(said) < 1500
    assert "private words" not in said
