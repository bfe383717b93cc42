"""Hand-off files: what goes out comes back, and nothing wrong does."""

import csv
import io
import json
import unicodedata
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskeff.coslow.handoff import (
    hand_off,
    label_studio_config,
    label_studio_tasks,
    read_labels,
    read_part,
    to_annotate,
    write_lines,
)
from taskeff.errors import DataError
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


def table(records):
    """The cells of the CSV that is handed out."""
    content = hand_off(records, "csv", CHOICES, "=Say yes.")["to_annotate.csv"]
    return list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def filled(records, fmt):
    """The hand-off file of one format, labelled as a person would."""
    if fmt == "jsonl":
        rows = [{**r, "label": label_of(i)} for i, r in enumerate(records)]
        return write_lines(rows)
    if fmt == "csv":
        rows = table(records)
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
    cells = [cell for row in table(records) for cell in row]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)
    assert "'=HYPERLINK(1)" in cells


@given(st.text(alphabet="='+-@a\t ", min_size=1, max_size=8))
def test_any_text_survives_csv(text):
    records = to_annotate([Example("r", text)], [0.5], None)
    filled = [{**record, "label": "label"} for record in records]
    content = hand_off(filled, "csv", None)["to_annotate.csv"]
    assert read_labels("labels.csv", records, content) == [Example("r", text, "label")]


def test_label_studio_files(records):
    tasks = json.loads(label_studio_tasks(records))
    assert tasks[0]["data"]["text"] == TEXTS[0]
    # An empty prediction opens as somebody's annotation.
    assert not any({"predictions", "annotations"} & set(task) for task in tasks)
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
        (lambda rows: rows[2].update(id="x", text="else"), "line 3: id 'x' was not handed out"),
        (lambda rows: rows[2].update(rows[1]), "1 of 5 rows have no label yet: r2"),
        (
            lambda rows: rows[2].update(rows[1], label="yes"),
            "line 3: annotators disagree on 'r1': -no & <never>, yes; keep one",
        ),
        (lambda rows: [rows[2].pop(k) for k in ("text", "text_hash")], "line 3: 'r2' has no text"),
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
        ("a.csv", b"a,b\n1,2\n", "no column label, text"),
        (
            "a.csv",
            b"id,text,label\nr0,plain,caf\xe9\n",
            "line 2: 'label': not UTF-8; save the file as CSV UTF-8",
        ),
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


def flat(records, labels):
    """Label Studio's JSON-MIN: the data's fields beside its own number and who labelled."""
    data = [task["data"] for task in json.loads(label_studio_tasks(records))]
    return [
        {**one, "id": 101 + i, "label": label, "annotator": who, "annotation_id": 7, "lead_time": 2}
        for i, one in enumerate(data)
        for who, label in enumerate(labels(i))
    ]


def written(rows, delimiter):
    """Label Studio's CSV and TSV: as JSON-MIN, lists and objects as JSON in a cell."""
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, sorted(rows[0]), delimiter=delimiter)
    writer.writeheader()
    for row in rows:
        label = row["label"]
        cell = label if isinstance(label, str) else json.dumps(label)
        writer.writerow({**row, "label": cell})
    return buffer.getvalue().encode()


def full(records, labels):
    """Label Studio's JSON: a task with everybody's annotations."""
    tasks = json.loads(label_studio_tasks(records))
    for i, task in enumerate(tasks):
        values = [v if isinstance(v, dict) else {"choices": [v]} for v in labels(i)]
        task["annotations"] = [{"result": [{"from_name": "label", "value": v}]} for v in values]
    return tasks


EXPORTS = {
    "min.json": lambda records, labels: json.dumps(flat(records, labels)).encode(),
    "full.json": lambda records, labels: json.dumps(full(records, labels)).encode(),
    "export.csv": lambda records, labels: written(flat(records, labels), ","),
    "export.tsv": lambda records, labels: written(flat(records, labels), "\t"),
    "rows.jsonl": lambda records, labels: write_lines(
        [{**r, "label": one} for i, r in enumerate(records) for one in labels(i)]
    ),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_every_export_gives_the_labels_however_many_gave_them(records, name):
    for labels in (lambda i: [label_of(i)], lambda i: [label_of(i)] * 2):
        content = EXPORTS[name](records, labels)
        expected = [Example(f"r{i}", text, label_of(i)) for i, text in enumerate(TEXTS)]
        assert read_labels(name, records, content) == expected


@pytest.mark.parametrize("name", EXPORTS)
def test_annotators_who_disagree(records, name):
    content = EXPORTS[name](records, lambda i: CHOICES if i == 1 else [label_of(i)])
    with pytest.raises(DataError, match="annotators disagree on 'r1': yes, -no"):
        read_labels(name, records, content)


@pytest.mark.parametrize("name", EXPORTS)
def test_two_ticks_of_one_annotator_are_no_disagreement(records, name):
    ticks = {"choices": CHOICES}
    content = EXPORTS[name](records, lambda i: [ticks if i == 1 else label_of(i)])
    with pytest.raises(DataError, match="several labels for one row: yes, -no & <never>; keep one"):
        read_labels(name, records, content)


def test_rows_of_one_text_keep_to_their_own_where_ids_are_another_s():
    records = to_annotate([Example(f"r{i}", "same") for i in range(2)], [0.5] * 2, None)
    rows = [{"id": 7 + i, "text": "same", "label": label} for i in (1, 0) for label in "xy"[i] * 2]
    content = json.dumps(rows).encode()
    assert [e.target for e in read_labels("a.json", records, content)] == ["y", "x"]


def test_labels_and_texts_are_compared_as_they_look():
    pool = [Example("r0", "caf\u00e9\r\nbar"), Example("r1", "x")]
    records = to_annotate(pool, [0.5] * 2, ["caf\u00e9", "no"])
    rows = [
        {**r, **{k: unicodedata.normalize("NFD", v).replace("\r\n", "\n") for k, v in new.items()}}
        for r, new in zip(records, ({"text": pool[0].text, "label": "caf\u00e9"}, {"label": "no"}))
    ]
    assert rows[0]["label"] == "cafe\u0301"
    found = read_labels("a.jsonl", records, write_lines(rows))
    assert found == [Example("r0", "caf\u00e9\r\nbar", "caf\u00e9"), Example("r1", "x", "no")]


@pytest.mark.parametrize("form", ["jsonl", "csv", "label-studio"])
def test_what_to_do_travels_with_the_rows(records, form):
    files = hand_off(records, form, CHOICES, 'Say "yes" or <never>.')
    told = files.get("label_studio.xml") or next(iter(files.values()))
    said = told.decode().replace('""', '"').replace("&lt;", "<").replace("&gt;", ">")
    assert 'Say "yes" or <never>.' in said.replace('\\"', '"').replace("&quot;", '"')
    assert all(choice in said.replace("&amp;", "&") for choice in CHOICES)


def test_what_xml_cannot_hold_is_refused_before_it_is_handed_out(records):
    with pytest.raises(DataError, match="Label Studio's XML cannot"):
        hand_off(records, "label-studio", ["a\x07", "b"])


def test_labels_that_are_known_travel_too(records):
    known = [{**records[0], "label": "yes"}, *records[1:]]
    for form in ("jsonl", "csv", "label-studio"):
        name, content = next(iter(hand_off(known, form, CHOICES).items()))
        assert [r["label"] for r in read_part(name, records, content)] == ["yes", *[""] * 4]
