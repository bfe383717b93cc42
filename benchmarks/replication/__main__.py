"""The replication's measurements, tables and figures.

    python -m benchmarks.replication collect -c CONFIG [key=value ...]   # run -> CSV
    python -m benchmarks.replication report                            # CSV -> page
    python -m benchmarks.replication ship                              # CSV -> bundled family

`collect` reads a run's storage, measures what the noise study lacks and writes `scores.csv`,
`signals.csv`, `noise.jsonl`, `fingerprint.json` and the archive `cells.jsonl`; the others need only
those files.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.replication.figures import draw
from benchmarks.replication.tables import Setup, fill, results
from benchmarks.replication.targets import read_measurements
from taskeff.config_file import load_config
from taskeff.errors import TaskeffError

FOLDER = Path("docs/replication")
PAGE = Path("docs/replication.md")
CONFIG = Path("configs/smollm2-135m-instruct.yaml")


def main() -> int:
    """Collect or report; 2 on bad input."""
    parser = argparse.ArgumentParser(description="Collect, report or ship the replication.")
    parser.add_argument("step", choices=("collect", "report", "ship"))
    parser.add_argument("-c", "--config", type=Path, default=CONFIG)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the CSV files lie")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page the tables go into")
    parser.add_argument("--no-study", action="store_true", help="only what needs no model")
    parser.add_argument("overrides", nargs="*", help="key.sub=value")
    options = parser.parse_intermixed_args()
    try:
        config = load_config(options.config, options.overrides)
        if options.step == "collect":
            from benchmarks.replication.collect import collect
            from taskeff.models import load_model
            from taskeff.run.plan import make_plan

            plan = make_plan(config)
            model = None if options.no_study else load_model(plan.config.model)
            collect(plan, options.folder, model)
            return 0
        if options.step == "ship":
            from benchmarks.replication.ship import ship

            print(ship(read_measurements(options.folder), config, options.folder))
            return 0
        training = config.training
        setup = Setup(config.cap, training.budgets, training.seeds)
        tasks = read_measurements(options.folder)
        fill(options.page, draw(tasks, setup, options.folder) + results(tasks, setup))
    except TaskeffError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
