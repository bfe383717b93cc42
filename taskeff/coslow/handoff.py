"""Hand-off files out, labels in: JSON lines, Label Studio, CSV, each read back with checks.

Every format carries the row's id, its text and the text's hash, so that labels cannot drift to
another row, and what to do with it; what comes back may be any of the three, whatever went out.
"""

from __future__ import annotations

import json
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import quoteattr

from taskeff.errors import DataError
from taskeff.errors import names as listed
from taskeff.spreadsheet import csv_bytes, restored
from taskeff.storage import digest
from taskeff.tasks.examples import Example
from taskeff.tasks.metrics import choice_of
from taskeff.tasks.readers import format_of, read_file

Form = Literal["jsonl", "label-studio", "csv"]
CSV_FIELDS = ("id", "text", "text_hash", "confidence", "instruction", "choices", "label")
LS_ID = "row_id"  # Label Studio's flat exports hold its own number under `id`
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
    records: Sequence[Mapping[str, Any]],
    form: Form,
    choices: Sequence[str] | None,
    instruction: str = "",
) -> dict[str, bytes]:
    """The files to hand to whoever labels, by name; the first is the one that comes back."""
    if form == "label-studio":
        return {
            "to_annotate.json": label_studio_tasks(records, free=not choices),
            "label_studio.xml": label_studio_config(choices, instruction),
        }
    records = [{**record, "instruction": instruction} for record in records]
    if form == "csv":
        told = {"choices": " | ".join(choices or ())}
        return {"to_annotate.csv": csv_bytes(CSV_FIELDS, [{**r, **told} for r in records])}
    return {"to_annotate.jsonl": write_lines(records)}


def write_lines(records: Sequence[Mapping[str, Any]]) -> bytes:
    """The records as JSON lines."""
    return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records).encode()


def label_studio_tasks(records: Sequence[Mapping[str, Any]], *, free: bool = False) -> bytes:
    """The records as Label Studio import JSON; labels they have already are annotations.

    Args:
        free: labels are written, not chosen.
    """
    kind, value = ("textarea", "text") if free else ("choices", "choices")
    tasks: list[dict[str, Any]] = []
    for record in records:
        data = {key: record[key] for key in ("text", "text_hash", "confidence")}
        task: dict[str, Any] = {"data": {LS_ID: record["id"], **data}}
        if record["label"]:
            result = {"from_name": "label", "to_name": "text", "type": kind}
            task["annotations"] = [{"result": [{**result, "value": {value: [record["label"]]}}]}]
        tasks.append(task)
    return (json.dumps(tasks, ensure_ascii=False, indent=1) + "\n").encode()


def label_studio_config(choices: Sequence[str] | None, instruction: str = "") -> bytes:
    """Label Studio's labelling configuration: a choice of labels, or a free text field."""
    head = f"  <Header value={_attribute(instruction)}/>\n" if instruction else ""
    if choices:
        options = "".join(f"    <Choice value={_attribute(c)}/>\n" for c in choices)
        field = (
            '  <Choices name="label" toName="text" choice="single" required="true">\n'
            f"{options}  </Choices>\n"
        )
    else:
        field = '  <TextArea name="label" toName="text" maxSubmissions="1" required="true"/>\n'
    return f'<View>\n{head}  <Text name="text" value="$text"/>\n{field}</View>\n'.encode()


def _attribute(text: str) -> str:
    if bad := next((c for c in text if c < " " and c not in "\t\n\r"), None):
        raise DataError(f"{text!r} holds {bad!r}, which Label Studio's XML cannot; take it out")
    return quoteattr(text)


def read_labels(
    path: Path | str, handed_out: Sequence[Mapping[str, Any]], content: bytes | None = None
) -> list[Example]:
    """The labelled examples in `path`, checked against what was handed out, in its order.

    Args:
        path: `.csv`, `.tsv`, `.json` (Label Studio's JSON or JSON-MIN, or the published layout: a
            list of `input_text` and `ground_truth`, without ids) or JSON lines.
        content: of the file, where it is not read from `path`.

    Raises:
        DataError: naming the file and the row: unreadable, not handed out, a changed text or hash,
            several labels that differ, one that is no text or outside the choices, or the rows that
            have no label yet.
    """
    records = read_part(path, handed_out, content)
    left = [record["id"] for record in records if not record["label"]]
    if left:
        raise DataError(
            f"{path}: {len(left)} of {len(records)} rows have no label yet: "
            + ", ".join(left[:NAMED])
            + (" ..." if len(left) > NAMED else "")
        )
    return [Example(record["id"], record["text"], record["label"]) for record in records]


def read_part(
    path: Path | str, handed_out: Sequence[Mapping[str, Any]], content: bytes | None = None
) -> list[dict[str, Any]]:
    """The records handed out, in order, with the labels that `path` gives them so far.

    A label that is not there yet is ""; fields that somebody added to a row stay with it. A row
    that comes several times, once for each of its annotators, is one where their labels agree.

    Raises:
        DataError: as `read_labels`, but for rows without a label.
    """
    known_rows = _HandedOut(handed_out)
    found: dict[str, dict[str, Any]] = {}
    for where, record in _records(path, content):
        known = known_rows.of(record, where)
        label = _one_label(record.get("label"), known["choices"] or (), where)
        if label and known["choices"]:
            choice = choice_of(label, known["choices"])
            if choice is None:
                raise DataError(f"{where}: label {label!r} is not one of {known['choices']}")
            label = choice
        before = found.get(known["id"], {}).get("label")
        if before and label and before != label:
            raise DataError(
                f"{where}: annotators disagree on {known['id']!r}: {before}, {label}; keep one"
            )
        found[known["id"]] = {**record, **known, "label": label or before or ""}
    return [found.get(r["id"]) or {**r, "label": ""} for r in handed_out]


class _HandedOut:
    """The rows handed out, by what a file may still know of them."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]):
        self._by_id = {row["id"]: row for row in rows}
        self._by_text: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for row in rows:
            self._by_text[_as_typed(row["text"])].append(row)
        self._by_hash = {row["text_hash"]: row["text"] for row in rows}
        self._taken: dict[str, Any] = {}  # a row's id -> the name it was last found by

    def of(self, record: Mapping[str, Any], where: str) -> Mapping[str, Any]:
        """The row that `record` is: by its id, or by its text where the id is another's."""
        names = [str(record[key]) for key in (LS_ID, "id") if record.get(key) not in (None, "")]
        known = next((self._by_id[name] for name in names if name in self._by_id), None)
        known = known or self._by_its_text(record, names)
        if known is None:
            name = f"id {names[0]!r}" if names else "this text"
            raise DataError(f"{where}: {name} was not handed out")
        text, stated = record.get("text"), record.get("text_hash")
        if text is None and not stated:
            raise DataError(f"{where}: {known['id']!r} has no text; keep the column `text`")
        other = text is not None and _as_typed(text) != _as_typed(known["text"])
        if other or (stated and stated != known["text_hash"]):
            raise DataError(f"{where}: the text of {known['id']!r} has changed; label it as it was")
        self._taken[known["id"]] = names
        return known

    def _by_its_text(self, record: Mapping[str, Any], names: list[str]) -> Mapping[str, Any] | None:
        text = record.get("text", self._by_hash.get(str(record.get("text_hash"))))
        same = self._by_text.get(_as_typed(text), [])
        # Of rows with one text each takes its own; a name that comes again is another annotator's.
        again = (row for row in same if names and self._taken.get(row["id"]) == names)
        free = (row for row in same if row["id"] not in self._taken)
        return next(again, None) or next(free, None) or (same[0] if same else None)


def _as_typed(text: object) -> str:
    """The text as an editor may have written it again: composed otherwise, with other line ends."""
    lines = str(text).replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", lines)


def _one_label(value: object, choices: Sequence[str], where: str) -> str:
    """The label, "" for none; of a Label Studio export one that may be a list or an object."""
    if choices and isinstance(value, str) and value not in choices:
        value = _ticked(value)
    answers = list(dict.fromkeys(_answers(value, where)))
    if len(answers) > 1:
        raise DataError(f"{where}: several labels for one row: {', '.join(answers)}; keep one")
    return answers[0] if answers else ""


def _ticked(cell: str) -> object:
    """Several choices, as a cell of Label Studio's CSV holds them; else the cell."""
    try:
        return json.loads(cell) if cell.startswith('{"choices":') else cell
    except (ValueError, RecursionError):
        return cell


def _answers(value: object, where: str) -> Iterator[str]:
    if isinstance(value, Mapping) and (inner := value.get("choices") or value.get("text")):
        value = inner
    if isinstance(value, list):
        for one in value:
            yield from _answers(one, where)
        return
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not (value is None or isinstance(value, str)):
        raise DataError(f"{where}: label {value!r} is not text; write it in quotes")
    if value and value.strip():
        yield value.strip()


def _records(path: Path | str, content: bytes | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file and line, record) of every row, of whatever form; blank rows are left out."""
    kind = format_of(str(path)) or "json"
    for row in read_file(str(path), kind, content=content):
        if row.values is None:
            raise DataError(f"{row.where}: {row.error}")
        if kind != "csv":
            for record in _labelled(row.values, row.where):
                yield row.where, record
            continue
        if missing := {"text", "label"} - set(row.values):
            lacks, there = ", ".join(sorted(missing)), listed(row.values)
            raise DataError(f"{path}: no column {lacks}; keep the header row, it is {there}")
        if any(row.values.values()):
            record = {key: restored(cell) for key, cell in row.values.items()}
            if digest(row.values["text"]) == record.get("text_hash"):
                record["text"] = row.values["text"]  # Label Studio's own CSV is as it is
            yield row.where, record


def _labelled(row: Mapping[str, Any], where: str) -> Iterator[dict[str, Any]]:
    """Ours, or of Label Studio's JSON or JSON-MIN (flat) export, or of the published layout."""
    if "input_text" in row:
        yield {"text": row["input_text"], "label": row.get("ground_truth")}
        return
    data = row.get("data")
    if not isinstance(data, dict):
        yield dict(row)
        return
    given = row.get("annotations") or []
    if not isinstance(given, list):
        raise DataError(f"{where}: annotations are {given!r:.40}; export the project as JSON")
    yield {**data, "label": None}
    for one in given:
        if isinstance(one, dict) and not one.get("was_cancelled"):
            yield {**data, "label": _results(one.get("result"))}


def _results(results: object) -> list[object]:
    """What one annotator answered; of a project with several controls ours counts."""
    given = [one for one in (results if isinstance(results, list) else ()) if isinstance(one, dict)]
    ours = [one for one in given if one.get("from_name") == "label"]
    return [one.get("value") for one in ours or given]
