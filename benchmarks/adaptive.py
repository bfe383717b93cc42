"""The adaptive grid replayed on measured curves, against measuring every cell.

    python -m benchmarks.adaptive --results DIR [--ceilings FILE] --cos-low CSV [--json OUT]

The rows are taken in many random orders: the scouts are measured in full, the others cell by cell
as `taskeff.estimate.adaptive.decide` says. A cell costs the optimiser steps of its fine-tune,
min(max_steps, epochs * budget / batch): all cells of a family have the same model and batch, so
steps are GPU-hours up to a constant. Evaluation, the same for every cell, is not counted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.estimates.comparison import read_cases
from benchmarks.estimates.predictors import Case
from taskeff.curves.curve import PUBLISHED_GRID, TaskCurve, data_efficiency
from taskeff.errors import TaskeffError
from taskeff.estimate.adaptive import SCOUTS, TOLERANCE, decide, scout_prior, scouts, tolerances
from taskeff.estimate.prior import CurvePrior
from taskeff.estimate.regression import fit_line, left_out_predictions

BATCH = 32
MAX_STEPS = 500
EPOCHS = {"3 epochs": 3.0, "10 epochs": 10.0, "500 steps": float("inf")}
"""Schedules; in the last, the published one before its early stopping, every cell costs alike."""


@dataclass(frozen=True)
class Row:
    """One task of the replay: what it scores where, and its curve from the full grid."""

    case: Case
    scores: Mapping[int, float]
    curve: TaskCurve

    @property
    def grid(self) -> list[int]:
        """Budgets above 0."""
        return [n for n in self.scores if n]


@dataclass(frozen=True)
class Outcome:
    """One order of rows: shares of the full grid's cost, and differences from it."""

    cost: float
    cells: float
    slope: float
    mae: float
    auc_error: float


def main() -> int:
    """Replay; 2 on bad input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", required=True, help="folder of {task}.json")
    parser.add_argument("--ceilings", help="a-priori ceilings")
    parser.add_argument("--cos-low", required=True, help="CSV with columns task, cos_low")
    parser.add_argument("--cap", type=int, default=5000)
    parser.add_argument("--scouts", type=int, default=SCOUTS, help="rows measured in full")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    parser.add_argument("--blind", action="store_true", help="without CoS-Low, for comparison")
    parser.add_argument("--orders", type=int, default=20, help="random orders of the rows")
    parser.add_argument("--json", help="write every outcome here")
    options = parser.parse_args()
    try:
        cases = read_cases(options.results, options.ceilings, options.cos_low, cap=options.cap)
        rows = [row_of(case) for case in cases]
        print(
            f"{len(cases)} tasks, {options.scouts} measured in full, tolerance "
            f"{options.tolerance}, {options.orders} orders: mean [worst]\n{'cost':<12}"
            f"{'of full cost':>18}{'of its cells':>18}{'OLS slope off':>18}{'LOO MAE off':>18}"
            f"{'area off':>10}"
        )
        found: dict[str, list[Outcome]] = {}
        for name, epochs in EPOCHS.items():
            costs = steps(epochs)
            found[name] = [
                replay(shuffled(rows, order), costs, options) for order in range(options.orders)
            ]
            print(_line(name, found[name]), flush=True)
    except TaskeffError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        text = {name: [asdict(row) for row in rows] for name, rows in found.items()}
        Path(options.json).write_text(json.dumps(text, indent=1) + "\n")
    return 0


def steps(epochs: float) -> dict[int, float]:
    """Budget -> optimiser steps of its fine-tune."""
    return {n: float(min(MAX_STEPS, np.ceil(epochs * n / BATCH))) for n in PUBLISHED_GRID}


def replay(rows: Sequence[Row], costs: Mapping[int, float], options: argparse.Namespace) -> Outcome:
    """The rows in this order, adaptively; a cell at budget n costs `costs[n]`."""
    names = [row.curve.name for row in rows]
    signal = {} if options.blind else {row.curve.name: row.case.cos_low for row in rows}
    full = scouts(names, signal, options.scouts)
    prior = scout_prior(
        [row.curve for row in rows if row.curve.name in full],
        signal,
        {row.curve.name: row.case.ceiling for row in rows},
    )
    allowed = tolerances(names, signal, options.tolerance)
    spent, cells, areas = 0.0, 0, []
    for row in rows:
        name = row.curve.name
        seen, area = row.scores, row.curve.auc
        if prior is not None and name not in full:
            seen, area = _adaptively(row, prior, costs, signal.get(name), allowed[name])
        spent += sum(costs[n] for n in seen if n)
        cells += len(seen) - 1
        areas.append(area)
    x, got = np.array([row.case.cos_low for row in rows]), np.array(areas)
    truth = np.array([row.curve.auc for row in rows])
    skipping = np.array([name not in full for name in names])
    return Outcome(
        cost=spent / sum(costs[n] for row in rows for n in row.grid),
        cells=cells / sum(len(row.grid) for row in rows),
        slope=fit_line("ols", x, got).slope - fit_line("ols", x, truth).slope,
        mae=_mae(x, got) - _mae(x, truth),
        auc_error=float(np.mean(np.abs(got - truth)[skipping])),
    )


def _adaptively(
    row: Row,
    prior: CurvePrior,
    costs: Mapping[int, float],
    cos_low: float | None,
    tolerance: float,
) -> tuple[dict[int, float], float]:
    """What was measured of a row before it was determined, and its area with the rest imputed."""
    seen = {0: row.scores[0]}
    while True:
        said = decide(
            prior,
            seen,
            row.grid,
            costs=costs,
            cap=row.curve.cap,
            cos_low=cos_low,
            ceiling=row.case.ceiling,
            tolerance=tolerance,
        )
        if said.next_budget is None:
            scores = {**seen, **said.imputed}
            return seen, _curve(row.case, scores, tuple(said.imputed)).auc
        seen[said.next_budget] = row.scores[said.next_budget]


def row_of(case: Case) -> Row:
    """A measured task's row on the paper's grid."""
    scores = {n: s for n, s in case.scores.items() if n == 0 or n in PUBLISHED_GRID}
    return Row(case, scores, _curve(case, scores))


def shuffled(rows: Sequence[Row], order: int) -> list[Row]:
    """The rows in a random order, seeded by `order`."""
    return [rows[i] for i in np.random.default_rng(order).permutation(len(rows))]


def _curve(case: Case, scores: Mapping[int, float], imputed: tuple[int, ...] = ()) -> TaskCurve:
    ceiling = None if case.ceiling is None else max(case.ceiling, *scores.values())
    return data_efficiency(
        scores, cap=case.curve.cap, ceiling=ceiling, name=case.curve.name, imputed=imputed
    )


def _mae(x: np.ndarray, auc: np.ndarray) -> float:
    return float(np.mean(np.abs(left_out_predictions("ols", x, auc) - auc)))


def _line(name: str, rows: Sequence[Outcome]) -> str:
    def pair(values: list[float], sign: str = "") -> str:
        worst = max(values, key=abs)
        return f"{np.mean(values):{sign}.3f} [{worst:{sign}.3f}]".rjust(18)

    return (
        f"{name:<12}"
        + pair([row.cost for row in rows])
        + pair([row.cells for row in rows])
        + pair([row.slope for row in rows], "+")
        + pair([row.mae for row in rows], "+")
        + f"{np.mean([row.auc_error for row in rows]):>10.3f}"
    )


if __name__ == "__main__":
    sys.exit(main())
