"""Leave-one-task-out comparison of predictors of labels needed.

    python -m benchmarks.estimates --results DIR [--ceilings FILE] --cos-low CSV [--json OUT]

    python -m benchmarks.estimates --families NAME=DIR ... [--ceilings FILE] [--tasks CSV] \
        --cos-low CSV [--json OUT]

The second is about evidence beside CoS-Low (the CSV is Llama's): a family for any model, printed
lines, siblings, small test sets. Prints one line per predictor, pilot budgets and target; every
figure is about tasks the predictor was not fitted on. Labels errors are in log2 units: 1.0 is a
factor of two.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from benchmarks.estimates.advice_replay import replay
from benchmarks.estimates.comparison import PILOTS, compare, read_cases
from benchmarks.estimates.lc_pfn import load
from benchmarks.estimates.shown import demo_tasks, everything, replication, simulated, with_cos_low
from benchmarks.estimates.unseen import read_families
from taskeff.errors import TaskeffError
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.shapes import Beta, Power

NESTED = [list(budgets) for budgets in PILOTS[:5]]


def main() -> int:
    """Run the comparison; 2 on bad input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--results", help="folder of {task}.json")
    what.add_argument("--families", nargs="+", metavar="NAME=DIR", help="evidence beside CoS-Low")
    parser.add_argument("--tasks", help="CSV whose column task names the tasks of --families")
    parser.add_argument("--ceilings", help="a-priori ceilings")
    parser.add_argument("--cos-low", required=True, help="CSV with columns task, cos_low")
    parser.add_argument("--cap", type=int, default=5000)
    parser.add_argument("--json", help="write every record here")
    parser.add_argument("--figure", help="draw the figure of docs/estimates.md here (SVG or PNG)")
    options = parser.parse_args()
    try:
        if options.families:
            return show_everything(options)
        cases = read_cases(options.results, options.ceilings, options.cos_low, cap=options.cap)
        lc_pfn, reason = load()
        records = compare(cases, others={} if lc_pfn is None else {"lc_pfn": lc_pfn})
        advice = replay(cases)
    except TaskeffError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(cases)} tasks\n{HEAD}")
    for record in records:
        print(_line(record))
    if lc_pfn is None:
        print(f"lc_pfn: skipped, {reason}")
    print("\nstop advice: regret as a share of the oracle's cost, by value of a full score")
    for row in advice:
        print(
            f"  {row['value']:>8g} labels  regret {row['regret']:.3f}  "
            f"(one budget for all: {row['fixed_regret']:.3f})"
        )
    if options.json:
        Path(options.json).write_text(
            json.dumps({"records": records, "advice": advice}, indent=1) + "\n"
        )
    if options.figure:
        draw(records, options.figure)
    return 0


HEAD = (
    f"{'predictor':<18}{'pilots':<18}{'target':>6}{'AUC':>7}{'mean':>7}{'median':>8}{'signed':>8}"
    f"{'<2x':>6}{'n':>4}{'AUROC':>7}  80 % of areas, labels; width"
)


def show_everything(options: argparse.Namespace) -> int:
    """The table of evidence beside CoS-Low."""
    families = read_families(
        options.families, options.ceilings, tasks=options.tasks, cap=options.cap
    )
    records = everything(with_cos_low(families, options.cos_low))
    print(HEAD)
    for record in records:
        more = f"  {record['family']}" if "family" in record else ""
        more += f"  Brier {record['brier']:.3f}" if "brier" in record else ""
        print(_line(record) + more)
    prior = Calibration.load("generic").priors[0]
    drawn, small = simulated(prior), replication(prior)
    print(
        f"2,000 tasks drawn from the generic prior, scores on 50 rows: 80 % intervals hold "
        f"{drawn['area']:.3f} of areas, {drawn['labels']:.3f} of labels\n"
        f"SmolLM2 up to 512 labels, pilots at 8 and 32: AUC error {small['auc_mae']:.3f}, 80 % "
        f"intervals hold {small['held']:.3f} of {small['of']}"
    )
    print("\n".join(demo_tasks()))
    if options.json:
        found = {"records": records, "simulated": drawn, "replication": small}
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n")
    return 0


def draw(records: list[dict], path: str) -> None:
    """The two curve families, and the error at 90 % by number of pilots."""
    import matplotlib

    matplotlib.use("Agg")
    # A fixed salt and no date: the same figure is the same bytes.
    matplotlib.rcParams["svg.hashsalt"] = "taskeff"
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    x = np.linspace(0, 1, 400)
    for area, colour in ((0.3, "C0"), (0.5, "C1"), (0.7, "C2")):
        left.plot(x, Beta(7.0).value(x, area), colour, label=f"area {area}")
        left.plot(x, Power().value(x, area), colour, linestyle=":")
    left.set(xlabel="log2 n / log2 cap", ylabel="share of the range")
    left.set_title("Beta curve, s = 7 (solid); power (dotted)", fontsize=10)
    left.legend(frameon=False)
    for name in ("mean", "published", "beta", "power_fit", "inverse_power_law", "ours"):
        found = {
            r["n_pilots"]: r["log2_error_mean"]
            for r in records
            if r["predictor"] == name and r["target"] == 0.9 and r["pilots"] in NESTED
        }
        right.plot(found.keys(), found.values(), marker="o", label=name.replace("_", " "))
    right.set(xlabel="pilots (50, 100, 200, 500 labels)", ylabel="mean error, log2 labels")
    right.set_title("labels to 90 %, one task left out", fontsize=10)
    right.set_ylim(bottom=0)
    right.set_xticks(range(5))
    right.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)


def _line(record: dict) -> str:
    def number(key: str, width: int) -> str:
        value = record[key]
        return f"{'-':>{width}}" if value is None else f"{value:>{width}.2f}"

    pilots = ",".join(map(str, record["pilots"])) or "none"
    text = f"{record['predictor']:<18}{pilots:<18}{record['target']:>6}{record['auc_mae']:>7.3f}"
    text += number("log2_error_mean", 7) + number("log2_error_median", 8)
    text += number("log2_error_signed", 8) + number("within_2x", 6) + f"{record['scored']:>4}"
    text += number("reach_auroc", 7) + "  "
    for key in ("auc_coverage", "label_coverage"):
        if record[key]:
            found = record[key]["80"]
            text += f"{found['covered']:.0f}/{found['of']:.0f} ({found['width']:.2f})  "
    return text


if __name__ == "__main__":
    sys.exit(main())
