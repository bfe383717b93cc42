"""Hand-off files out, labels in: JSON lines, Label Studio, CSV, each read back with checks.

Every format carries the row's id, its text and the text's hash, so that labels cannot drift to
another row; what comes back may be any of the three, whatever went out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import quoteattr

from taskeff.errors import DataError
from taskeff.spreadsheet import csv_bytes, restored
from taskeff.storage import digest
from taskeff.tasks.examples import Example
from taskeff.tasks.readers import format_of, read_file

Form = Literal["jsonl", "label-studio", "csv"]
CSV_FIELDS = ("id", "text", "text_hash", "confidence", "label")
NAMED = 40  # rows that one message lists


def to_annotate(
    examples: Sequence[Example], confidences: Sequence[float | None], choices: Sequence[str] | None
) -> list[dict[str, Any]]:
    """One record per example to label: fill `label` where it is empty, leave the rest."""
    return [
        {
            "id": example.id,
            "text": example.text,
            "text_hash": digest(example.text),
            "confidence": confidence,
            "choices": list(choices) if choices else None,
            "label": example.target or "",
        }
        for example, confidence in zip(examples, confidences, strict=True)
    ]


def hand_off(
    records: Sequence[Mapping[str, Any]], form: Form, choices: Sequence[str] | None
) -> dict[str, bytes]:
    """The files to hand to whoever labels, by name; the first is the one that comes back."""
    if form == "csv":
        return {"to_annotate.csv": csv_bytes(CSV_FIELDS, records)}
    if form == "label-studio":
        return {
            "to_annotate.json": label_studio_tasks(records),
            "label_studio.xml": label_studio_config(choices),
        }
    return {"to_annotate.jsonl": write_lines(records)}


def write_lines(records: Sequence[Mapping[str, Any]]) -> bytes:
    """The records as JSON lines."""
    return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records).encode()


def label_studio_tasks(records: Sequence[Mapping[str, Any]]) -> bytes:
    """The records as Label Studio import JSON; the confidence is the prediction's score."""
    tasks = []
    for record in records:
        data = {key: record[key] for key in ("id", "text", "text_hash", "confidence")}
        task: dict[str, Any] = {"data": data}
        if record["confidence"] is not None:
            task["predictions"] = [{"score": record["confidence"], "result": []}]
        tasks.append(task)
    return (json.dumps(tasks, ensure_ascii=False, indent=1) + "\n").encode()


def label_studio_config(choices: Sequence[str] | None) -> bytes:
    """Label Studio's labelling configuration: a choice of labels, or a free text field."""
    if choices:
        options = "".join(f"    <Choice value={quoteattr(c)}/>\n" for c in choices)
        field = (
            '  <Choices name="label" toName="text" choice="single" required="true">\n'
            f"{options}  </Choices>\n"
        )
    else:
        field = '  <TextArea name="label" toName="text" maxSubmissions="1" required="true"/>\n'
    return f'<View>\n  <Text name="text" value="$text"/>\n{field}</View>\n'.encode()


def read_labels(path: Path | str, handed_out: Sequence[Mapping[str, Any]]) -> list[Example]:
    """The labelled examples in `path`, checked against what was handed out, in its order.

    Args:
        path: `.csv`, `.json` (a Label Studio export, or the published layout: a list of
            `input_text` and `ground_truth`, without ids) or JSON lines.

    Raises:
        DataError: naming the file and the row: unreadable, an unknown or repeated id, a changed
            text or hash, a label that is no text or outside the choices, or the rows that have
            no label yet.
    """
    records = read_part(path, handed_out)
    left = [record["id"] for record in records if not record["label"]]
    if left:
        raise DataError(
            f"{path}: {len(left)} of {len(records)} rows have no label yet: "
            + ", ".join(left[:NAMED])
            + (" ..." if len(left) > NAMED else "")
        )
    return [Example(record["id"], record["text"], record["label"]) for record in records]


def read_part(path: Path | str, handed_out: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The records handed out, in order, with the labels that `path` gives them so far.

    A label that is not there yet is ""; fields that somebody added to a row stay with it.

    Raises:
        DataError: as `read_labels`, but for rows without a label.
    """
    expected = {record["id"]: record for record in handed_out}
    found: dict[str, dict[str, Any]] = {}
    for where, record in _records(path):
        known = _known(record, expected, found)
        if known is None:
            name = f"id {record['id']!r}" if "id" in record else "this text"
            raise DataError(f"{where}: {name} was not handed out")
        if known["id"] in found:
            raise DataError(f"{where}: id {known['id']!r} is there twice")
        changed = digest(record.get("text")) != known["text_hash"]
        if changed or record.get("text_hash", known["text_hash"]) != known["text_hash"]:
            raise DataError(f"{where}: the text of {known['id']!r} has changed; label it as it was")
        label = _label(record.get("label"), where)
        if label and known["choices"] and label not in known["choices"]:
            raise DataError(f"{where}: label {label!r} is not one of {known['choices']}")
        found[known["id"]] = {**record, **known, "label": label}
    return [found.get(i) or {**record, "label": ""} for i, record in expected.items()]


def _known(
    record: Mapping[str, Any],
    expected: Mapping[str, Mapping[str, Any]],
    found: Mapping[str, Any],
) -> Mapping[str, Any] | None:
    """What was handed out for `record`: by its id, or by its text where it never had one."""
    if "id" in record:
        return expected.get(str(record["id"]))
    same = [one for one in expected.values() if one["text"] == record.get("text")]
    return next((one for one in same if one["id"] not in found), same[0] if same else None)


def _label(value: object, where: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None or isinstance(value, str):
        return (value or "").strip()
    raise DataError(f"{where}: label {value!r} is not text; write it in quotes")


def _records(path: Path | str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file and line, record) of every row, of whatever form; blank rows are left out."""
    kind = format_of(str(path)) or "json"
    for row in read_file(str(path), kind):
        if row.values is None:
            raise DataError(f"{row.where}: {row.error}")
        if kind != "csv":
            yield row.where, _record(row.values, row.where)
            continue
        if missing := {"id", "text", "label"} - set(row.values):
            raise DataError(f"{path}: no column {', '.join(sorted(missing))}; keep the header row")
        if any(row.values.values()):
            yield row.where, {key: restored(cell) for key, cell in row.values.items()}


def _record(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Ours, or of Label Studio's JSON or JSON-MIN (flat) export, or of the published layout."""
    if "input_text" in row:
        return {"text": row["input_text"], "label": row.get("ground_truth")}
    data = row.get("data")
    if not isinstance(data, dict):
        return dict(row)
    labels = [label for one in _annotations(row) for label in _labels(one)]
    if len(set(labels)) > 1:
        raise DataError(f"{where}: annotators disagree: {', '.join(labels)}")
    return {**data, "label": labels[0] if labels else ""}


def _annotations(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    given = task.get("annotations") or []
    return [one for one in given if isinstance(one, dict) and not one.get("was_cancelled")]


def _labels(annotation: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for result in annotation.get("result") or []:
        value = result.get("value", {})
        chosen = value.get("choices") or value.get("text") or []
        found += [chosen] if isinstance(chosen, str) else [str(one) for one in chosen]
    return found
