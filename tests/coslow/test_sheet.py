"""Handed-out rows: what is labelled so far, what is written, what is refused."""

import json

import pytest

from taskeff.coslow.handoff import hand_off, to_annotate
from taskeff.coslow.sheet import FILLED, chosen, keys, open_sheet
from taskeff.errors import ConfigError, DataError
from taskeff.storage import Store
from taskeff.tasks.task import Example
from tests.helpers import SELECTION


def hand_out(out, texts=("a", "b", "c"), choices=("yes", "no"), form="jsonl"):
    """A folder as `select` leaves it, without a model."""
    rows = to_annotate(
        [Example(f"r{i}", t) for i, t in enumerate(texts)], [0.5] * len(texts), choices
    )
    store = Store(str(out))
    files = hand_off(rows, form, choices)
    for name, content in files.items():
        store.write_bytes(content, name)
    selection = {
        "made_from": "m",
        "task": "tickets",
        "description": "Is it so?",
        "choices": list(choices) if choices else None,
        "fingerprint": {"model": "org/model", "revision": "main"},
        "rows": rows,
        "handed_out": {"name": next(iter(files)), "digest": "0"},
    }
    store.write_json(SELECTION | selection, "selection.json")
    return out


def test_labels_are_written_one_by_one_and_further_fields_stay(tmp_path):
    path = hand_out(tmp_path) / FILLED
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[2] |= {"label": "no", "note": "sure"}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    sheet = open_sheet(tmp_path)
    assert sheet.left == [0, 1]
    sheet.write(0, "yes")
    again = open_sheet(tmp_path)
    assert [record["label"] for record in again.records] == ["yes", "", "no"]
    assert again.records[2]["note"] == "sure"
    assert again.digest == sheet.digest
    sheet.write(0, "")
    assert open_sheet(tmp_path).left == [0, 1]


def test_what_somebody_else_wrote_is_not_overwritten(tmp_path):
    sheet, other = open_sheet(hand_out(tmp_path)), open_sheet(tmp_path)
    other.write(1, "no")
    before = (tmp_path / FILLED).read_bytes()
    with pytest.raises(DataError, match="has changed since it was read here"):
        sheet.write(0, "yes")
    assert (tmp_path / FILLED).read_bytes() == before
    assert [record["label"] for record in sheet.records] == ["", "", ""]


@pytest.mark.parametrize("form", ["csv", "label-studio"])
def test_other_forms_are_filled_beside_what_was_handed_out(tmp_path, form):
    sheet = open_sheet(hand_out(tmp_path, form=form))
    handed_out = (tmp_path / sheet.handed_out).read_bytes()
    sheet.write(0, "yes")
    assert (tmp_path / sheet.handed_out).read_bytes() == handed_out
    assert open_sheet(tmp_path).left == [1, 2]
    assert sheet.score_command().endswith(f"--labels {tmp_path / FILLED}")


def test_what_cannot_be_labelled_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no selection\.json"):
        open_sheet(tmp_path)
    store = Store(str(hand_out(tmp_path)))
    selection = store.read_json("selection.json")
    store.write_json({**selection, "handed_out": None}, "selection.json")
    with pytest.raises(DataError, match="came with their labels"):
        open_sheet(tmp_path)
    store.write_json({"rows": []}, "selection.json")
    with pytest.raises(DataError, match="made_from: Field required"):
        open_sheet(tmp_path)
    store.write_json(selection, "selection.json")
    (tmp_path / FILLED).write_text("{")
    with pytest.raises(DataError, match="is one object over many lines"):
        open_sheet(tmp_path)


def test_keys_never_stand_for_another_number():
    assert keys(["yes", "no"]) == ["1", "2"]
    assert keys(["0", "1", "many"]) == ["0", "1", None]
    assert chosen("1", ["0", "1"]) == "1"
    assert chosen("2", ["yes", "no"]) == chosen("NO", ["yes", "no"]) == "no"
    assert chosen("3", ["yes", "no"]) is None
