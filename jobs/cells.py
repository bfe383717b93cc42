"""Measure a run's pending cells without Ray: torchrun --nproc-per-node 2 jobs/cells.py -c run.yaml

For a machine or a Slurm allocation of its own; `taskeff calibrate` afterwards finds the cells done.
"""

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from taskeff.config_file import load_config
from taskeff.errors import TaskeffError
from taskeff.finetune.cells import by_task_and_seed
from taskeff.finetune.measure import measure
from taskeff.finetune.workers import end_worker
from taskeff.lease import Lease
from taskeff.run.plan import make_plan


def main() -> None:
    """Measure what is left of every task and seed; all workers of a torchrun together."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-c", "--config", type=Path, required=True)
    parser.add_argument("overrides", nargs="*", help="key.sub=value")
    arguments = parser.parse_args()
    config = load_config(arguments.config, arguments.overrides)
    plan = make_plan(config)
    device = None if config.cluster.gpus_per_worker else "cpu"
    workers = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
    lease = Lease(plan.store, config.cluster.lease_seconds)
    with lease if workers.is_main_process else nullcontext():
        # One worker looks, so that all agree.
        pending = plan.cells.keys() - plan.results().keys() if workers.is_main_process else ()
        (left,) = broadcast_object_list([by_task_and_seed(pending)])
        for wanted in left:
            if workers.is_main_process:
                lease.check()
            measure(
                wanted,
                plan.tasks[wanted.task],
                plan.config,
                plan.store,
                plan.cells,
                device=device,
                resume=False,
            )


if __name__ == "__main__":
    try:
        main()
    except TaskeffError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    end_worker()
