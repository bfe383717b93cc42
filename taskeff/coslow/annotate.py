"""Hand-off files out, labels in: JSON lines that any labelling tool or editor can fill."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from taskeff.errors import DataError
from taskeff.store import digest
from taskeff.tasks.task import Example


def to_annotate(
    examples: Sequence[Example], confidences: Sequence[float | None], choices: Sequence[str] | None
) -> list[dict[str, Any]]:
    """One record per example to label: fill `label`, leave the rest."""
    return [
        {
            "id": example.id,
            "text": example.text,
            "text_hash": digest(example.text),
            "confidence": confidence,
            "choices": list(choices) if choices else None,
            "label": "",
        }
        for example, confidence in zip(examples, confidences, strict=True)
    ]


def write_lines(records: Sequence[Mapping[str, Any]]) -> bytes:
    """The records as JSON lines."""
    return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records).encode()


def read_labels(path: Path, handed_out: Sequence[Mapping[str, Any]]) -> list[Example]:
    """The labelled examples in `path`, checked against what was handed out.

    Raises:
        DataError: naming the file and the row: not JSON, an unknown or repeated id, a changed
            text, an empty label or one outside the choices, or rows still missing.
    """
    expected = {record["id"]: record for record in handed_out}
    found: dict[str, Example] = {}
    unlabelled: list[str] = []
    for number, record in _records(path):
        where = f"{path}, line {number}"
        known = expected.get(str(record.get("id")))
        if known is None:
            raise DataError(f"{where}: id {record.get('id')!r} was not handed out")
        if known["id"] in found:
            raise DataError(f"{where}: id {known['id']!r} is labelled twice")
        if digest(record.get("text")) != known["text_hash"]:
            raise DataError(f"{where}: the text of {known['id']!r} has changed; label it as it was")
        label = record.get("label")
        if not isinstance(label, str) or not label.strip():
            unlabelled.append(known["id"])
            continue
        label = label.strip()
        if known["choices"] and label not in known["choices"]:
            raise DataError(f"{where}: label {label!r} is not one of {known['choices']}")
        found[known["id"]] = Example(known["id"], known["text"], label)
    left = [*unlabelled, *(i for i in expected if i not in found and i not in unlabelled)]
    if left:
        raise DataError(
            f"{path}: {len(left)} of {len(expected)} rows have no label yet: {', '.join(left[:8])}"
            + (" ..." if len(left) > 8 else "")
        )
    return [found[record["id"]] for record in handed_out]


def _records(path: Path) -> list[tuple[int, dict[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    records: list[tuple[int, dict[str, Any]]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: not JSON: {error}") from None
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number}: expected an object")
        records.append((number, record))
    return records
