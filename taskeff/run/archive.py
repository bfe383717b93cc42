"""A run's finished results as one small file: to commit, to move, to go on from elsewhere.

JSON lines, one per finished cell or CoS-Low, sorted, each with the hash of the settings it was
measured with. Predictions and gradients stay behind: the fit does not need them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from taskeff.coslow.result import RESULT
from taskeff.coslow.result import check_result as check_coslow
from taskeff.coslow.selection import SELECTION, check_selection
from taskeff.errors import DataError
from taskeff.finetune.cells import Cell, check_result
from taskeff.run.plan import Plan
from taskeff.schema import Artefact, Count, Object, Text, Whole, checked, decoded


class _Record(Artefact):
    kind: Literal["cell", "coslow"]
    task: Text
    hash: Text
    result: Object


class _CellRecord(Artefact):
    budget: Count
    seed: Whole


class _Drawn(Artefact):
    low: list[Text]
    random: list[Text]


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
        folder = plan.folder(name)
        selection = drawn(folder.read_json(SELECTION), folder.path(SELECTION))
        record = {"kind": "coslow", "task": name, "hash": plan.coslow_hashes[name]}
        records.append({**record, "selection": selection, "result": result})
    lines = (json.dumps(record, sort_keys=True, ensure_ascii=False) for record in records)
    return "".join(f"{line}\n" for line in lines).encode()


def drawn(selection: Any, where: str) -> dict[str, list[str]]:
    """Ids of the examples drawn, low and random, as archives hold them.

    Raises:
        DataError: it is no selection; names file and field.
    """
    if isinstance(selection, dict) and "low" in selection:  # of an archive already
        return checked(selection, _Drawn, where)
    found = check_selection(selection, where)
    return {
        "low": [row["id"] for row in found["rows"]],
        "random": [row["id"] for row in found["control"]],
    }


def import_results(plan: Plan, data: bytes, where: str) -> Imported:
    """Publish the archive's results that belong to the run and that it has not got.

    Args:
        where: the archive's name, for messages.

    Raises:
        DataError: a line is no result; nothing of the archive is taken over then.
    """
    done: set[Cell | str] = {*plan.results(), *plan.coslow_results()}
    known = foreign = 0
    new: dict[Cell | str, dict[str, Any]] = {}
    for of, record in list(_records(data, where)):
        wanted = plan.cells.get(of) if isinstance(of, Cell) else plan.coslow_hashes.get(of)
        if wanted is None or record["hash"] != wanted:
            foreign += 1
        elif of in done or of in new:
            known += 1
        else:
            new[of] = record
    for of, record in new.items():
        folder = plan.folder(of)
        if isinstance(of, str):
            folder.write_json(record["selection"], SELECTION)
        folder.write_json(record["result"], "result.json" if isinstance(of, Cell) else RESULT)
    return Imported(len(new), known, foreign)


def _records(data: bytes, where: str) -> Iterator[tuple[Cell | str, dict[str, Any]]]:
    """(the cell, or the task whose CoS-Low it is; the record) of every line."""
    for number, line in enumerate(data.splitlines(), 1):
        at = f"{where}, line {number}"
        try:
            record = decoded(line)
        except ValueError as error:
            raise DataError(f"{at}: is not JSON ({error})") from None
        checked(record, _Record, at)
        result = record["result"]
        if record["kind"] == "coslow":
            drawn(record.get("selection"), f"{at}: selection")
            check_coslow(record["task"], result, f"{at}: result")
            yield record["task"], record
        else:
            checked(record, _CellRecord, at)
            cell = Cell(record["task"], record["budget"], record["seed"])
            check_result(result, cell, record["hash"], f"{at}: result")
            yield cell, record
