"""A run's finished results as one small file: to commit, to move, to go on from elsewhere.

JSON lines, one per finished cell or CoS-Low, sorted, each with the hash of the settings it was
measured with. Predictions and gradients stay behind: the fit does not need them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from taskeff.coslow.result import RESULT
from taskeff.errors import DataError
from taskeff.finetune.cells import Cell
from taskeff.nesting import json_of
from taskeff.run.plan import Plan

_FIELDS = {"cell": {"task", "budget", "seed"}, "coslow": {"task", "selection"}}


@dataclass(frozen=True)
class Imported:
    """What an archive held: results taken over, there already, and of no use to this run."""

    added: int
    known: int
    foreign: int


def export_results(plan: Plan) -> bytes:
    """The archive of everything that the run has finished."""
    records: list[dict[str, Any]] = []
    for cell, result in sorted(plan.results().items()):
        # The loss of every step is most of a result's bytes and is drawn nowhere.
        training = result["training"]
        slim = None if training is None else {**training, "losses": []}
        record = {"kind": "cell", **vars(cell), "hash": result["hash"]}
        records.append({**record, "result": {**result, "training": slim}})
    for name, result in plan.coslow_results().items():
        selection = drawn(plan.folder(name).read_json("selection.json"))
        record = {"kind": "coslow", "task": name, "hash": plan.coslow_hashes[name]}
        records.append({**record, "selection": selection, "result": result})
    lines = (json.dumps(record, sort_keys=True, ensure_ascii=False) for record in records)
    return "".join(f"{line}\n" for line in lines).encode()


def drawn(selection: dict[str, Any]) -> dict[str, list[str]]:
    """Ids of the examples drawn, low and random, as archives hold them."""
    if "low" in selection:  # of an archive already
        return selection
    return {
        "low": [row["id"] for row in selection["rows"]],
        "random": [row["id"] for row in selection["control"]],
    }


def import_results(plan: Plan, data: bytes, where: str) -> Imported:
    """Publish the archive's results that belong to the run and that it has not got.

    Args:
        where: the archive's name, for messages.

    Raises:
        DataError: a line is no result.
    """
    done: set[Cell | str] = {*plan.results(), *plan.coslow_results()}
    added = known = foreign = 0
    for number, record in enumerate(_records(data, where), 1):
        of, wanted = _place(plan, record, f"{where}, line {number}")
        if wanted is None or record["hash"] != wanted:
            foreign += 1
        elif of in done:
            known += 1
        else:
            folder = plan.folder(of)
            if record["kind"] == "coslow":
                folder.write_json(record["selection"], "selection.json")
                folder.write_json(record["result"], RESULT)
            else:
                folder.write_json(record["result"], "result.json")
            done.add(of)
            added += 1
    return Imported(added, known, foreign)


def _place(plan: Plan, record: dict[str, Any], where: str) -> tuple[Cell | str, str | None]:
    """The cell, or the task whose CoS-Low it is, and the hash it must have; None if the run has
    no such thing."""
    fields = _FIELDS.get(record.get("kind", ""))
    if (
        fields is None
        or not fields <= record.keys()
        or "hash" not in record
        or any(isinstance(record[field], list | dict) for field in fields - {"selection"})
    ):
        raise DataError(f"{where}: is no result; export the run again")
    if record["kind"] == "coslow":
        return record["task"], plan.coslow_hashes.get(record["task"])
    cell = Cell(record["task"], record["budget"], record["seed"])
    return cell, plan.cells.get(cell)


def _records(data: bytes, where: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(data.splitlines(), 1):
        try:
            record = json_of(line)
        except ValueError as error:
            raise DataError(f"{where}, line {number}: is not JSON ({error})") from None
        if not isinstance(record, dict) or not isinstance(record.get("result"), dict):
            raise DataError(f"{where}, line {number}: is no result; export the run again")
        yield record
