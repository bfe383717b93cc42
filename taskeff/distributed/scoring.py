"""Ray Data: CoS-Low of many tasks over a pool of actors that load the model once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
import ray.data
from ray.exceptions import GetTimeoutError

from taskeff.coslow.measure import measure_signal
from taskeff.distributed.monitor import describe_cluster
from taskeff.distributed.session import quiet_data
from taskeff.errors import ClusterError, TaskeffError
from taskeff.memory import return_memory
from taskeff.run.plan import Plan
from taskeff.run.progress import Progress


def measure_signals(
    plan: Plan, names: Sequence[str], progress: Progress, check: Callable[[], None]
) -> None:
    """Measure the CoS-Low of these tasks.

    Raises:
        ClusterError: there was no room for the actors within `cluster.placement_timeout`.
    """
    cluster = plan.config.cluster
    rows = [{"task": name} for name in names]
    tasks = ray.put({name: (plan.tasks[name], plan.folder(name)) for name in names})
    actors = min(cluster.scoring_actors, len(names))
    with quiet_data() as context:
        context.wait_for_min_actors_s = math.ceil(60 * cluster.placement_timeout)
        stream = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            SignalScorer,  # type: ignore[arg-type]
            fn_constructor_args=(plan.config, tasks),
            compute=ray.data.ActorPoolStrategy(min_size=actors, max_size=actors),
            # Two whole-CPU actors on two CPUs would starve the read tasks.
            num_cpus=cluster.cpus_per_worker / 2,
            num_gpus=cluster.gpus_per_worker or None,
        )
        try:
            for row in stream.iter_rows():
                check()
                if row["error"]:
                    progress.failed(row["task"], row["error"])
                else:
                    progress.coslow(row["result"], row["seconds"])
        except GetTimeoutError:
            gpus = f"{cluster.gpus_per_worker:g} GPU, " if cluster.gpus_per_worker else ""
            raise ClusterError(
                f"CoS-Low: no room within {cluster.placement_timeout:g} minutes "
                f"(cluster.placement_timeout) for {actors} actors of {gpus}"
                f"{cluster.cpus_per_worker / 2:g} CPU; the cluster has {describe_cluster()}: check "
                "the node types' maxima and quotas, or lower cluster.scoring_actors"
            ) from None


class SignalScorer:
    """An actor that holds the model and measures one task per row."""

    def __init__(self, config, tasks):
        import torch

        from taskeff.models import load_model, load_tokenizer

        torch.set_num_threads(config.cluster.threads_per_worker)
        self.config = config
        self.tasks = ray.get(tasks) if isinstance(tasks, ray.ObjectRef) else tasks
        self.tokenizer = load_tokenizer(config.model)
        self.model = load_model(config.model, None if config.cluster.gpus_per_worker else "cpu")

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        from taskeff.tasks.prompts import Prompter

        (task, folder), started = self.tasks[row["task"]], time.monotonic()
        prompter = Prompter(self.tokenizer, task.spec.description)
        try:
            result = measure_signal(self.model, task, prompter, self.config, folder)
        except TaskeffError as error:
            # One task's bad rows must not drop the others' block.
            return {"task": task.name, "result": None, "seconds": 0.0, "error": str(error)}
        return_memory()
        seconds = time.monotonic() - started
        return {"task": task.name, "result": result, "seconds": seconds, "error": ""}
