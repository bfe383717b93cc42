"""Folders of measured curves -> the shipped families: one for any model, and each model's own.

    python -m benchmarks.families NAME=DIR NAME=DIR [NAME=DIR ...] [--ceilings FILE] [--tasks CSV]

Writes `generic.json`, with what its intervals covered on models it had not seen, and puts curve
priors into the `NAME.json` of published lines. Only fitted parameters are written, no curve. A
family of one's own curves, tasks and all, is `taskeff curves fit`.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.estimates.unseen import (
    coverage_of,
    generic_records,
    measured,
    read_families,
    sibling_coverage,
)
from taskeff.errors import TaskeffError
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.folders import fit_parameters, of_parameters

FOLDER = Path("taskeff/estimate/families")
BESIDE = "; curve priors fitted to the curves measured for it, shipped as parameters"


def main() -> int:
    """Write the families; 2 on bad input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="+", metavar="NAME=DIR")
    parser.add_argument("--ceilings", help="a-priori ceilings")
    parser.add_argument("--tasks", help="CSV whose column task names the tasks to take")
    parser.add_argument("--cap", type=int, default=5000)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    try:
        families = read_families(
            options.families, options.ceilings, tasks=options.tasks, cap=options.cap
        )
        tasks = measured(families)
        for name in families:
            path = options.folder / f"{name}.json"
            if path.exists():
                printed = Calibration.load(str(path))
                priors = fit_parameters(tasks, [name])
                source = (printed.source or "").removesuffix(BESIDE) + BESIDE
                replace(printed, curve=priors[0].shape, priors=priors, source=source).save(path)
        generic = of_parameters(
            "generic",
            fit_parameters(tasks, list(tasks)),
            cap=options.cap,
            source=f"curves of {sum(map(len, tasks.values()))} fine-tuned tasks of "
            f"{', '.join(tasks)} (arXiv 2512.24991), pooled and shipped as parameters",
            coverage={
                **coverage_of(generic_records(families, ("generic",))),
                "sibling": sibling_coverage(families),
            },
        )
        generic.save(options.folder / "generic.json")
    except TaskeffError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(generic.coverage)
    return 0


if __name__ == "__main__":
    sys.exit(main())
