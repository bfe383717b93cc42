"""Measure a run's pending cells without Ray: torchrun --nproc-per-node 2 jobs/cells.py -c run.yaml

For a machine or a Slurm allocation of its own; `taskeff calibrate` afterwards finds the cells done.
"""

import argparse
import sys
from pathlib import Path

from taskeff.config import load_config
from taskeff.errors import TaskeffError
from taskeff.finetune.cells import measure
from taskeff.finetune.workers import end_worker
from taskeff.run.plan import make_plan


def main() -> None:
    """Measure every row that has a cell left; all workers of a torchrun together."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-c", "--config", type=Path, required=True)
    parser.add_argument("overrides", nargs="*", help="key.sub=value")
    arguments = parser.parse_args()
    config = load_config(arguments.config, arguments.overrides)
    plan = make_plan(config)
    device = None if config.cluster.gpus_per_worker else "cpu"
    for row in plan.pending():
        hashes = {
            c.budget: h for c, h in plan.cells.items() if (c.task, c.seed) == (row.task, row.seed)
        }
        measure(row, plan.tasks[row.task], plan.config, plan.store, hashes, device=device)


if __name__ == "__main__":
    try:
        main()
    except TaskeffError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    end_worker()
