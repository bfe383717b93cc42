"""`selection.json`, what `select` chose: its fields, and the one way to read it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from taskeff.config import CosLowConfig
from taskeff.schema import Artefact, Count, Number, Object, Text, Truth, checked
from taskeff.storage import Store

SELECTION = "selection.json"


class _Row(Artefact):
    id: Text
    text: Text
    text_hash: Text
    label: Text


class _Control(Artefact):
    model_config = ConfigDict(extra="forbid")

    id: Text
    text: Text
    target: Text | None


class _HandedOut(Artefact):
    name: Literal["to_annotate.jsonl", "to_annotate.json", "to_annotate.csv"]
    digest: Text


class PoolFacts(Artefact):
    """What became of a pool's rows, in `pool.json` and `selection.json`."""

    rows_in: Count
    duplicates: Count
    left_out: Count
    held_out: Count
    beyond_cap: Count
    escaped: Count
    note: Text | None


class _Pool(PoolFacts):
    rows: Count


class Selection(Artefact):
    """What `selection.json` holds at least."""

    made_from: Text
    task: Text
    rendered: Truth
    description: Text
    choices: list[Text] | None
    max_new_tokens: Annotated[Count, Field(ge=1)]
    settings: CosLowConfig
    fingerprint: Object
    pool: _Pool
    unscored: Count
    n_scored: Annotated[Count, Field(ge=1)]
    candidates: Count
    problems: list[Text]
    mean_confidence: Number
    rows: Annotated[list[_Row], Field(min_length=1)]
    control: list[_Control]
    handed_out: _HandedOut | None


def read_selection(folder: Store) -> dict[str, Any]:
    """`selection.json` in `folder`.

    Raises:
        TaskeffError: it is missing, cut short, or not what `select` writes; names file and field.
    """
    found = folder.read_json(SELECTION)
    return check_selection(found, folder.path(SELECTION))


def check_selection(value: Any, where: str) -> dict[str, Any]:
    """`value`, if it is a selection; raises DataError with file and field."""
    return checked(value, Selection, where)
