"""The CoS-Lows of a calibration: its tasks as data sets, what is measured of them already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskeff.coslow.data_set import DataSet
from taskeff.coslow.fingerprint import fingerprint, signal_hash
from taskeff.coslow.pool import TaskPool
from taskeff.coslow.result import RESULT
from taskeff.run.plan import Plan
from taskeff.storage import Store


def signal_hashes(plan: Plan) -> dict[str, str]:
    """Task -> the hash of its CoS-Low's settings."""
    config = plan.config
    return {
        name: signal_hash(
            task.data_hash,
            plan.identity,
            config.model.dtype,
            config.coslow,
            tasks_seed=config.tasks.seed,
            shard_rows=config.scoring.shard_rows,
        )
        for name, task in plan.tasks.items()
    }


def signal_folder(store: Store, task: str, hash_: str) -> Store:
    """Where a task's CoS-Low artefacts lie."""
    return store.child("coslow", f"task={task}", hash_)


def run_fingerprint(plan: Plan) -> dict[str, Any]:
    """What the run's CoS-Lows are measured with."""
    return fingerprint(plan.identity, plan.config.model, plan.config.coslow)


def data_sets(plan: Plan) -> dict[str, DataSet]:
    """Every task as a data set whose random examples are measured too.

    The random-example control costs a second Gram matrix and tells whether low confidence is what
    matters.
    """
    measured = run_fingerprint(plan)
    return {
        name: DataSet(
            name=name,
            pool=TaskPool(plan.tasks[name], plan.config.coslow),
            folder=signal_folder(plan.store, name, hash_),
            settings=plan.config.coslow,
            made_with=hash_,
            fingerprint=measured,
            shard_rows=plan.config.scoring.shard_rows,
            control=True,
        )
        for name, hash_ in signal_hashes(plan).items()
    }


def read_signals(plan: Plan) -> dict[str, dict[str, Any]]:
    """Task -> its CoS-Low result, of those that are measured."""
    hashes: Mapping[str, str] = signal_hashes(plan)
    folders = {name: signal_folder(plan.store, name, hash_) for name, hash_ in hashes.items()}
    return {n: f.read_json(RESULT) for n, f in folders.items() if f.exists(RESULT)}
