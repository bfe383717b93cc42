"""Files out, labels in: what comes back is checked against what was handed out."""

import json

import pytest

from taskeff.coslow.annotate import read_labels, to_annotate, write_lines
from taskeff.errors import DataError
from taskeff.tasks.task import Example

EXAMPLES = [Example(f"train-{i}", f"text {i}") for i in range(3)]


@pytest.fixture
def handed_out():
    return to_annotate(EXAMPLES, [0.1, 0.2, None], ["yes", "no"])


def filled(tmp_path, records, **changes):
    path = tmp_path / "labels.jsonl"
    rows = [{**record, "label": "yes"} for record in records]
    for index, change in changes.items():
        rows[int(index[1:])].update(change)
    path.write_bytes(write_lines(rows))
    return path


def test_round_trip(tmp_path, handed_out):
    path = filled(tmp_path, handed_out, r1={"label": " no "})
    assert [e.target for e in read_labels(path, handed_out)] == ["yes", "no", "yes"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": ""}, "1 of 3 rows have no label yet: train-1"),
        ({"label": "maybe"}, "line 2: label 'maybe' is not one of"),
        ({"id": "train-9"}, "line 2: id 'train-9' was not handed out"),
        ({"id": "train-0"}, "line 2: id 'train-0' is labelled twice"),
        ({"text": "other"}, "line 2: the text of 'train-1' has changed"),
    ],
)
def test_bad_labels_name_the_line(tmp_path, handed_out, change, message):
    with pytest.raises(DataError, match=message):
        read_labels(filled(tmp_path, handed_out, r1=change), handed_out)


def test_partial_files_say_what_is_left(tmp_path, handed_out):
    path = filled(tmp_path, handed_out)
    path.write_text(path.read_text(encoding="utf-8").splitlines()[0], encoding="utf-8")
    with pytest.raises(DataError, match="2 of 3 rows have no label yet: train-1, train-2"):
        read_labels(path, handed_out)


def test_not_json(tmp_path, handed_out):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"id": "train-0"}) + "\n{", encoding="utf-8")
    with pytest.raises(DataError, match=r"line [12]"):
        read_labels(path, handed_out)
