"""A calibration's tasks as data sets on their way to CoS-Low."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from taskeff.coslow.data_set import DataSet
from taskeff.coslow.fingerprint import fingerprint
from taskeff.coslow.pipeline import Outcome, Scored
from taskeff.coslow.pool import TaskPool
from taskeff.coslow.result import read_result
from taskeff.run.plan import Plan
from taskeff.run.progress import Progress


def run_fingerprint(plan: Plan) -> dict[str, Any]:
    """What the run's CoS-Lows are measured with."""
    return fingerprint(plan.identity, plan.config.model, plan.config.coslow)


def data_sets(plan: Plan, tasks: Iterable[str]) -> list[DataSet]:
    """These tasks, in their order, with the random-example control.

    The control costs a second Gram matrix and tells whether low confidence is what matters.
    """
    measured, settings = run_fingerprint(plan), plan.config.coslow
    return [
        DataSet(
            name=name,
            pool=TaskPool(plan.tasks[name], settings),
            folder=plan.folder(name),
            settings=settings,
            made_with=plan.coslow_hashes[name],
            fingerprint=measured,
            shard_rows=plan.config.scoring.shard_rows,
            control=True,
        )
        for name in tasks
    ]


def follow(
    plan: Plan, events: Iterable[Scored | Outcome], progress: Progress
) -> dict[str, dict[str, Any]]:
    """Note what becomes of the tasks; `progress.check` is called at every event.

    Returns:
        The results of those that were measured.
    """
    found: dict[str, dict[str, Any]] = {}
    started = time.monotonic()
    for event in events:
        progress.check()
        if isinstance(event, Scored):
            continue
        if event.status == "measured":
            found[event.name] = read_result(plan.folder(event.name), event.name)
            progress.coslow(found[event.name], time.monotonic() - started)
        else:
            progress.failed(event.name, event.reason)
        started = time.monotonic()
    return found
