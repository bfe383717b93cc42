"""The adaptive grid: which cells to measure next, and what is imputed in the end. No Ray.

First the scouts and the held-out tasks, in full, and every task's zero-shot score; then, round by
round, the budget of each other task that tells most of its area for its cost. All rounds see the
same prior, so a resumed run decides as an undisturbed one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from taskeff.estimate.adaptive import decide, scout_prior, scouts, tolerances
from taskeff.estimate.run_tables import ceiling_of, task_curves
from taskeff.finetune.cells import Cell
from taskeff.run.cost import work_of
from taskeff.run.plan import Plan
from taskeff.run.results import curve_row

Results = Mapping[Cell, Mapping[str, Any]]
Imputed = dict[str, dict[int, float]]


@dataclass(frozen=True)
class Step:
    """The cells to measure next, and task -> budget -> score of those that need no measuring."""

    cells: list[Cell]
    imputed: Imputed

    def skipped(self, seeds: int) -> int:
        """Cells of so many seeds that need no measuring."""
        return sum(map(len, self.imputed.values())) * seeds


def next_step(plan: Plan, results: Results, signals: Mapping[str, Mapping[str, Any]]) -> Step:
    """What to measure after `results`; no cells when every task is determined.

    Args:
        signals: task -> its CoS-Low result, of all tasks.
    """
    tasks = plan.calibration
    cos_low = {name: float(signals[name]["cos_low"]) for name in tasks}
    whole = {*scouts(tasks, cos_low), *plan.held_out}
    first = [cell for cell in plan.cells if cell.task in whole or not cell.budget]
    missing = [cell for cell in first if cell not in results]
    if missing:
        return Step(missing, {})
    ceilings = {name: ceiling_of(plan.ceiling, name) for name in plan.tasks}
    names = [name for name in tasks if name in whole]
    # The others may have no more than their zero-shot score yet, which is no curve.
    measured = [curve_row(results[cell], plan) for cell in results if cell.task in names]
    curves = task_curves(measured, cap=plan.config.cap, ceiling=plan.ceiling)
    prior = scout_prior(
        [curves[name] for name in names], {name: cos_low[name] for name in names}, ceilings
    )
    others = [name for name in tasks if name not in whole]
    if prior is None:
        return Step([c for c in plan.cells if c.task in others and c not in results], {})
    allowed = tolerances(tasks, cos_low)
    cells: list[Cell] = []
    imputed: Imputed = {}
    for name in others:
        scores, n_test = _scores(plan, results, name)
        budgets = [budget for budget in plan.budgets(name) if budget]
        found = decide(
            prior,
            scores,
            budgets,
            costs={n: sum(work_of(plan, Cell(name, n, 0))) for n in budgets},
            cap=plan.config.cap,
            cos_low=cos_low[name],
            ceiling=ceilings[name],
            n_test=n_test,
            tolerance=allowed[name],
            seed=plan.config.tasks.seed,
        )
        if found.next_budget is None:
            imputed[name] = dict(found.imputed)
            continue
        cells += [
            cell
            for cell in plan.cells
            if (cell.task, cell.budget) == (name, found.next_budget) and cell not in results
        ]
    return Step(cells, imputed)


def outlook(plan: Plan, results: Results) -> str:
    """What can be said of skippable cells before the run goes on."""
    signals = plan.coslow_results()
    if len(signals) == len(plan.tasks):
        step = next_step(plan, results, signals)
        if step.imputed or not step.cells:
            skipped = step.skipped(len(plan.config.training.seeds))
            return f"skippable: {skipped} cells are determined by what is measured"
    return "skippable: known once CoS-Low, the scouts' curves and the zero-shot scores are measured"


def _scores(plan: Plan, results: Results, task: str) -> tuple[dict[int, float], int]:
    """(budget -> mean score over seeds, of budgets measured with every seed; test rows)."""
    found: dict[int, list[float]] = {}
    wanted: dict[int, int] = {}
    n_test = 0
    for cell in plan.cells:
        if cell.task == task:
            wanted[cell.budget] = wanted.get(cell.budget, 0) + 1
            if cell in results:
                found.setdefault(cell.budget, []).append(float(results[cell]["score"]))
                n_test = int(results[cell]["n_test"])
    means = {n: float(np.mean(s)) for n, s in found.items() if len(s) == wanted[n]}
    return means, n_test
