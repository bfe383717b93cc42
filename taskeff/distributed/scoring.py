"""Ray Data: CoS-Low of many tasks over a pool of actors that load the model once."""

from __future__ import annotations

import math
import time
from typing import Any

import ray
import ray.data
from ray.exceptions import GetTimeoutError
from rich.console import Console
from rich.text import Text

from taskeff.clock import clock
from taskeff.coslow.measure import measure_signal, signal_folder
from taskeff.distributed.monitor import describe_cluster
from taskeff.distributed.session import quiet_data
from taskeff.errors import ClusterError, TaskeffError
from taskeff.memory import return_memory
from taskeff.run.archive import read_signal, signal_hashes
from taskeff.run.plan import Plan


def measure_signals(plan: Plan, console: Console) -> dict[str, dict[str, Any]]:
    """Every task's CoS-Low, measured where it is not published yet.

    Raises:
        ClusterError: some tasks failed, with the reasons, and what the others gave is kept; or
            there was no room for the actors within `cluster.placement_timeout`.
    """
    hashes = signal_hashes(plan)
    known = {name: read_signal(plan, name, hash_) for name, hash_ in hashes.items()}
    found = {name: signal for name, signal in known.items() if signal is not None}
    missing = [name for name in plan.tasks if name not in found]
    if not missing:
        console.print(f"CoS-Low: all {len(found)} tasks are measured already")
        return {name: found[name] for name in plan.tasks}
    console.print(f"CoS-Low: {len(missing)} of {len(plan.tasks)} tasks to measure")
    cluster = plan.config.cluster
    rows = [{"task": name, "hash": hashes[name]} for name in missing]
    tasks = ray.put({name: plan.tasks[name] for name in missing})
    actors = min(cluster.scoring_actors, len(missing))
    with quiet_data() as context:
        context.wait_for_min_actors_s = math.ceil(60 * cluster.placement_timeout)
        stream = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            SignalScorer,  # type: ignore[arg-type]
            fn_constructor_args=(plan.config, plan.store, tasks),
            compute=ray.data.ActorPoolStrategy(min_size=actors, max_size=actors),
            # Two whole-CPU actors on two CPUs would starve the read tasks.
            num_cpus=cluster.cpus_per_worker / 2,
            num_gpus=cluster.gpus_per_worker or None,
        )
        try:
            failures = _collect(stream, found, len(missing), console)
        except GetTimeoutError:
            gpus = f"{cluster.gpus_per_worker:g} GPU, " if cluster.gpus_per_worker else ""
            raise ClusterError(
                f"CoS-Low: no room within {cluster.placement_timeout:g} minutes "
                f"(cluster.placement_timeout) for {actors} actors of {gpus}"
                f"{cluster.cpus_per_worker / 2:g} CPU; the cluster has {describe_cluster()}: check "
                "the node types' maxima and quotas, or lower cluster.scoring_actors"
            ) from None
    if failures:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in sorted(failures.items()))
        raise ClusterError(f"CoS-Low failed for {len(failures)} tasks: {reasons}")
    return {name: found[name] for name in plan.tasks}


def _collect(
    stream: ray.data.Dataset, found: dict[str, dict[str, Any]], total: int, console: Console
) -> dict[str, str]:
    started = time.monotonic()
    failures: dict[str, str] = {}
    for done, row in enumerate(stream.iter_rows(), 1):
        name, result = row["task"], row["result"]
        if row["error"]:
            failures[name] = row["error"]
            failure = Text.assemble((f"CoS-Low of {name} failed:", "red"), f" {row['error']}")
            console.print(failure, soft_wrap=True)
            continue
        found[name] = result
        left = (time.monotonic() - started) / done * (total - done)
        console.print(
            f"  [{done:>3}/{total}] {name:<24} CoS-Low {result['cos_low']:+.3f}  "
            f"random {result['random_cosine']:+.3f}  confidence {result['mean_confidence']:.3f}  "
            f"about {clock(left)} left",
            highlight=False,
            soft_wrap=True,
        )
    return failures


class SignalScorer:
    """An actor that holds the model and measures one task per row."""

    def __init__(self, config, store, tasks):
        import torch

        from taskeff.models import load_model, load_tokenizer

        torch.set_num_threads(config.cluster.threads_per_worker)
        self.config, self.store = config, store
        self.tasks = ray.get(tasks) if isinstance(tasks, ray.ObjectRef) else tasks
        self.tokenizer = load_tokenizer(config.model)
        self.model = load_model(config.model, None if config.cluster.gpus_per_worker else "cpu")

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        from taskeff.tasks.prompts import Prompter

        task = self.tasks[row["task"]]
        folder = signal_folder(self.store, task.name, row["hash"])
        prompter = Prompter(self.tokenizer, task.spec.description)
        try:
            result = measure_signal(self.model, task, prompter, self.config, folder)
        except TaskeffError as error:
            # One task's bad rows must not drop the others' block.
            return {"task": task.name, "result": None, "error": str(error)}
        return_memory()
        return {"task": task.name, "result": result, "error": ""}
