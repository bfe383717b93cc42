"""Hand-off files: what goes out comes back, and nothing wrong does."""

import csv
import io
import json
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskeff.coslow.handoff import (
    CSV_FIELDS,
    label_studio_config,
    label_studio_tasks,
    read_labels,
    to_annotate,
    write_lines,
)
from taskeff.errors import DataError
from taskeff.spreadsheet import csv_bytes
from taskeff.tasks.task import Example

TEXTS = [
    "=HYPERLINK(1)",
    "'=already quoted",
    '-3 degrees, "quoted"; and\nanother line',
    "@user + tabs\t\u2028 und Umlaute ä",
    "plain",
]
CHOICES = ["yes", "-no & <never>"]


@pytest.fixture
def records():
    pool = [Example(f"r{i}", text) for i, text in enumerate(TEXTS)]
    return to_annotate(pool, [0.1, 0.2, None, 0.4, 0.5], CHOICES)


def label_of(index):
    return CHOICES[index % 2]


def filled(records, fmt):
    """The hand-off file of one format, labelled as a person would."""
    if fmt == "jsonl":
        rows = [{**r, "label": label_of(i)} for i, r in enumerate(records)]
        return write_lines(rows)
    if fmt == "csv":
        rows = list(
            csv.reader(io.StringIO(csv_bytes(CSV_FIELDS, records).decode("utf-8-sig"), newline=""))
        )
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer)
        writer.writerow(rows[0])
        for i, row in enumerate(rows[1:]):
            writer.writerow([*row[:-1], label_of(i)])
        return buffer.getvalue().encode()
    tasks = json.loads(label_studio_tasks(records))
    for i, task in enumerate(tasks):
        value = {"choices": [label_of(i)]}
        task["annotations"] = [{"result": [{"from_name": "label", "value": value}]}]
    return json.dumps(tasks).encode()


@pytest.mark.parametrize("fmt", ["jsonl", "csv", "json"])
def test_round_trip(records, tmp_path, fmt):
    path = tmp_path / f"labels.{fmt}"
    path.write_bytes(filled(records, fmt))
    expected = [Example(f"r{i}", text, label_of(i)) for i, text in enumerate(TEXTS)]
    assert read_labels(path, records) == expected


def test_no_csv_cell_is_a_formula(records):
    rows = list(
        csv.reader(io.StringIO(csv_bytes(CSV_FIELDS, records).decode("utf-8-sig"), newline=""))
    )
    cells = [cell for row in rows for cell in row]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)
    assert "'=HYPERLINK(1)" in cells


@given(st.text(alphabet="='+-@a\t ", min_size=1, max_size=8))
def test_any_text_survives_csv(tmp_path_factory, text):
    records = to_annotate([Example("r", text)], [0.5], None)
    rows = csv_bytes(CSV_FIELDS, records).decode("utf-8-sig").replace(",\r\n", ",label\r\n")
    path = tmp_path_factory.mktemp("csv") / "labels.csv"
    path.write_bytes(rows.encode())
    assert read_labels(path, records)[0].text == text


def test_label_studio_files(records):
    tasks = json.loads(label_studio_tasks(records))
    assert tasks[0]["data"]["text"] == TEXTS[0]
    assert tasks[0]["predictions"] == [{"score": 0.1, "result": []}]
    assert "predictions" not in tasks[2]
    view = ElementTree.fromstring(label_studio_config(CHOICES))
    assert [choice.get("value") for choice in view.iter("Choice")] == CHOICES
    assert view.find("Text").get("value") == "$text"
    free = ElementTree.fromstring(label_studio_config(None))
    assert free.find("TextArea") is not None
    assert list(free.iter("Choice")) == []


def test_json_min_and_skipped_annotations(records, tmp_path):
    path = tmp_path / "labels.json"
    flat = [{**r, "label": label_of(i)} for i, r in enumerate(records)]
    path.write_text(json.dumps(flat))
    assert len(read_labels(path, records)) == len(TEXTS)
    tasks = json.loads(filled(records, "json"))
    tasks[1]["annotations"][0]["was_cancelled"] = True
    path.write_text(json.dumps(tasks))
    with pytest.raises(DataError, match="1 of 5 rows have no label yet: r1"):
        read_labels(path, records)


def test_the_published_layout_is_matched_by_text(tmp_path):
    records = to_annotate([Example(f"r{i}", t) for i, t in enumerate("abca")], [0.5] * 4, None)
    rows = [{"input_text": t, "ground_truth": i} for i, t in enumerate("aabc")]
    path = tmp_path / "annotated.json"
    path.write_text(json.dumps(rows))
    assert [e.target for e in read_labels(path, records)] == ["0", "2", "3", "1"]
    del rows[3]["ground_truth"]
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match="1 of 4 rows have no label yet: r2"):
        read_labels(path, records)
    rows[3]["input_text"] = "d"
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match="entry 4: this text was not handed out"):
        read_labels(path, records)


def broken(records, change):
    rows = [{**r, "label": label_of(i)} for i, r in enumerate(records)]
    change(rows)
    return write_lines(rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[2].update(id="x"), "line 3: id 'x' was not handed out"),
        (lambda rows: rows[2].update(rows[1]), "line 3: id 'r1' is there twice"),
        (lambda rows: rows[2].update(text="else"), "line 3: the text of 'r2' has changed"),
        (lambda rows: rows[2].update(text_hash="0"), "line 3: the text of 'r2' has changed"),
        (lambda rows: rows[2].update(label="maybe"), "line 3: label 'maybe' is not one of"),
        (lambda rows: rows[2].update(label=3), "line 3: label '3' is not one of"),
        (lambda rows: rows[2].update(label=True), "line 3: label True is not text"),
        (lambda rows: rows[2].update(label=float("nan")), "line 3: label NaN is not text"),
        (lambda rows: rows[2].update(label=None), "1 of 5 rows have no label yet: r2"),
        (lambda rows: rows[2].update(label=" "), "1 of 5 rows have no label yet: r2"),
        (lambda rows: rows.pop(2), "1 of 5 rows have no label yet: r2"),
    ],
)
def test_wrong_rows_are_named(records, tmp_path, change, message):
    path = tmp_path / "labels.jsonl"
    path.write_bytes(broken(records, change))
    with pytest.raises(DataError, match=message):
        read_labels(path, records)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"{,", "line 1: not JSON"),
        ("a.jsonl", b"[1]", "entry 1: expected an object"),
        ("a.jsonl", b"\xff\xfe", "a.jsonl: is UTF-16; save it as UTF-8"),
        ("a.json", b"{}", "line 1: this text was not handed out"),
        ("a.json", b"[", "not JSON"),
        ("a.csv", b"a,b\n1,2\n", "no column id, label, text"),
        (
            "a.csv",
            b"id,text,label\nr0,a,b,c\n",
            "line 2 and all that follow: 4 cells under 3 columns",
        ),
    ],
)
def test_unreadable_files(records, tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_labels(path, records)


def test_a_missing_file(records, tmp_path):
    with pytest.raises(DataError, match=r"none\.jsonl cannot be read"):
        read_labels(tmp_path / "none.jsonl", records)


def test_annotators_who_disagree(records, tmp_path):
    tasks = json.loads(filled(records, "json"))
    value = {"choices": [CHOICES[1]]}
    tasks[0]["annotations"].append({"result": [{"value": value}]})
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(tasks))
    with pytest.raises(DataError, match="entry 1: annotators disagree: yes, -no"):
        read_labels(path, records)
