"""The rows that `select` handed out with the labels they have so far, for whoever fills them in."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskeff.coslow.handoff import read_part, write_lines
from taskeff.coslow.selection import SELECTION, read_selection
from taskeff.errors import ConfigError, DataError
from taskeff.storage import Store, digest
from taskeff.tasks.metrics import choice_of

FILLED = "to_annotate.jsonl"
"""Where labels are written, whatever form was handed out: `score --labels` reads any."""


@dataclass
class Sheet:
    """Handed-out rows on their way to being labelled.

    Attributes:
        out: the folder of `select`, as its user names it.
        model: its hub id; MODEL where it is a folder, of which a selection keeps no path.
        records: the rows in order, `label` "" where there is none yet.
        handed_out: the file that `score` reads by default.
        digest: of the rows; other labels leave it as it is.
    """

    out: str
    task: str
    model: str
    instruction: str
    choices: Sequence[str] | None
    records: list[dict[str, Any]]
    handed_out: str
    digest: str
    _folder: Store
    _written: bytes | None

    @property
    def left(self) -> list[int]:
        """Places of the rows without a label."""
        return [place for place, record in enumerate(self.records) if not record["label"]]

    @property
    def labelled(self) -> int:
        """Rows with a label."""
        return len(self.records) - len(self.left)

    @property
    def path(self) -> str:
        """The file that labels are written to."""
        return f"{self.out.rstrip('/')}/{FILLED}"

    def write(self, place: int, label: str) -> None:
        """Label one row and publish the whole file; "" takes its label away.

        Raises:
            DataError: the file is not what was read or written here last; nothing is written.
        """
        now = self._folder.read_bytes(FILLED) if self._folder.exists(FILLED) else None
        if now != self._written:
            raise DataError(
                f"{self.path} has changed since it was read here: this label is not written, so "
                "that none of somebody else's is lost; run the same command again to go on with it"
            )
        changed = {**self.records[place], "label": label}
        records = [*self.records[:place], changed, *self.records[place + 1 :]]
        content = write_lines(records)
        self._folder.write_bytes(content, FILLED)
        self._written, self.records = content, records

    def score_command(self) -> str:
        """What comes after labelling."""
        words = ["taskeff", "score", "--model", self.model, "--out", self.out]
        return shlex.join(words + ([] if self.handed_out == FILLED else ["--labels", self.path]))


def open_sheet(out: Path | str) -> Sheet:
    """What `select` handed out to `out`, with the labels of its file.

    Raises:
        TaskeffError: no selection, one with nothing to label, or a file that `score` would refuse
            for more than missing labels.
    """
    folder = Store(str(out))
    if not folder.exists(SELECTION):
        raise ConfigError(
            f"{out} holds no selection.json; choose what to label with `taskeff select --out {out}`"
        )
    selection = read_selection(folder)
    rows, handed_out = selection["rows"], selection["handed_out"]
    stated = {
        "task": selection["task"],
        "model": _model(selection["fingerprint"]),
        "instruction": selection["description"],
        "choices": selection["choices"],
        "digest": digest([selection["made_from"], [row["text_hash"] for row in rows]]),
    }
    if handed_out is None:
        raise DataError(f"{out}: all rows came with their labels; go on with `taskeff score`")
    # What is there is noted before it is read: a change in between is then seen when writing.
    written = folder.read_bytes(FILLED) if folder.exists(FILLED) else None
    source = handed_out["name"] if written is None else FILLED
    return Sheet(
        out=str(out),
        records=read_part(f"{folder.uri}/{source}", rows),
        handed_out=handed_out["name"],
        _folder=folder,
        _written=written,
        **stated,
    )


def _model(fingerprint: Mapping[str, Any]) -> str:
    """The model to score with, as far as a selection knows it: of a folder only its name."""
    is_folder = str(fingerprint.get("revision")).startswith("sha256:")
    return "MODEL" if is_folder else str(fingerprint.get("model", "MODEL"))


def keys(choices: Sequence[str]) -> list[str | None]:
    """What to press for each choice: its number, or itself where choices are numbers."""
    if any(choice.isdecimal() for choice in choices):
        return [choice if choice.isdecimal() else None for choice in choices]
    return [str(number) for number in range(1, len(choices) + 1)]


def chosen(answer: str, choices: Sequence[str]) -> str | None:
    """The choice that `answer` names, by its key or by its word in any case; None for no choice."""
    by_key: Mapping[str | None, str] = dict(zip(keys(choices), choices, strict=True))
    by_word = {choice.casefold(): choice for choice in choices}
    if (choice := choice_of(answer, choices)) is not None:
        return choice
    return by_word.get(answer.casefold()) or by_key.get(answer)
