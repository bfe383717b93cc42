"""A run's finished results as one small file: to commit, to move, to go on from elsewhere.

JSON lines, one per finished cell or CoS-Low, sorted, each with the hash of the settings it was
measured with. Predictions and gradients stay behind: the fit does not need them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from taskeff.coslow.measure import signal_folder, signal_hash
from taskeff.errors import DataError
from taskeff.finetune.cells import Cell, cell_folder
from taskeff.run.plan import Plan
from taskeff.storage import Store

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
    for name, hash_ in signal_hashes(plan).items():
        folder = signal_folder(plan.store, name, hash_)
        if folder.exists("result.json"):
            parts = {part: folder.read_json(f"{part}.json") for part in ("selection", "result")}
            records.append({"kind": "coslow", "task": name, "hash": hash_, **parts})
    lines = (json.dumps(record, sort_keys=True, ensure_ascii=False) for record in records)
    return "".join(f"{line}\n" for line in lines).encode()


def import_results(plan: Plan, data: bytes, where: str) -> Imported:
    """Publish the archive's results that belong to the run and that it has not got.

    Args:
        where: the archive's name, for messages.

    Raises:
        DataError: a line is no result.
    """
    hashes = signal_hashes(plan)
    added = known = foreign = 0
    for number, record in enumerate(_records(data, where), 1):
        folder, wanted = _home(plan, hashes, record, f"{where}, line {number}")
        if folder is None or record["hash"] != wanted:
            foreign += 1
        elif folder.exists("result.json"):
            known += 1
        else:
            if record["kind"] == "coslow":
                folder.write_json(record["selection"], "selection.json")
            folder.write_json(record["result"], "result.json")
            added += 1
    return Imported(added, known, foreign)


def signal_hashes(plan: Plan) -> dict[str, str]:
    """Task -> the hash of its CoS-Low's settings."""
    return {
        name: signal_hash(plan.config, task.data_hash, plan.identity)
        for name, task in plan.tasks.items()
    }


def read_signal(plan: Plan, name: str, hash_: str) -> dict[str, Any] | None:
    """The task's CoS-Low result; None if it is not measured."""
    folder = signal_folder(plan.store, name, hash_)
    return folder.read_json("result.json") if folder.exists("result.json") else None


def _home(
    plan: Plan, hashes: dict[str, str], record: dict[str, Any], where: str
) -> tuple[Store | None, str | None]:
    """Where the record's result belongs and the hash it must have; None if nowhere."""
    fields = _FIELDS.get(record.get("kind", ""))
    if fields is None or not fields <= record.keys() or "hash" not in record:
        raise DataError(f"{where}: is no result; export the run again")
    if record["kind"] == "coslow":
        wanted = hashes.get(record["task"])
        return (signal_folder(plan.store, record["task"], wanted) if wanted else None), wanted
    cell = Cell(record["task"], record["budget"], record["seed"])
    wanted = plan.cells.get(cell)
    return (cell_folder(plan.store, cell, wanted) if wanted else None), wanted


def _records(data: bytes, where: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(data.splitlines(), 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where}, line {number}: is not JSON ({error})") from None
        if not isinstance(record, dict) or not isinstance(record.get("result"), dict):
            raise DataError(f"{where}, line {number}: is no result; export the run again")
        yield record
