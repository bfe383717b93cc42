"""Can the cluster ever hold one job's workers? Pure arithmetic on the configuration, no Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from taskeff.config import ClusterConfig, NodeType, RunConfig, ScoringConfig
from taskeff.errors import ClusterError

if TYPE_CHECKING:
    from taskeff.run.memory_account import MemoryAccount

HEAD_GB, JOB_GB = 4.0, 1.2
"""Of the head's memory: Ray and the driver, and each running job's trial and controller."""
UNCHECKED_LANES = 2
"""Where nothing is known of the machines."""


@dataclass(frozen=True)
class Demand:
    """What one worker of a job needs; memory in GB (1e9 bytes), 0: not known."""

    workers: int
    cpus: float
    gpus: float
    gpu_memory_gb: float = 0.0
    memory_gb: float = 0.0
    accelerator: str | None = None

    def __str__(self) -> str:
        parts = [f"{self.cpus:g} CPU"]
        if self.gpus:
            memory = f" of {self.gpu_memory_gb:.0f} GB" if self.gpu_memory_gb else ""
            parts.insert(0, f"{self.gpus:g} {_gpu(self.accelerator)}{memory}")
        if self.memory_gb:
            parts.append(f"{self.memory_gb:.0f} GB memory")
        return f"{self.workers} x ({', '.join(parts)})"


def coslow_actors(config: RunConfig) -> ScoringConfig:
    """`scoring` with what it leaves to `cluster`: GPUs and the number of actors."""
    scoring, cluster = config.scoring, config.cluster
    gpus = scoring.gpus_per_actor
    gpus = cluster.gpus_per_worker if gpus is None else gpus
    update: dict[str, Any] = {"gpus_per_actor": gpus}
    if cluster.node_types and gpus and "actors" not in scoring.model_fields_set:
        cpus = scoring.cpus_per_actor
        held = sum(kind.max_nodes * kind.holds(cpus, gpus) for kind in cluster.node_types)
        if cluster.max_concurrent_jobs:
            lanes = cluster.max_concurrent_jobs * cluster.workers_per_job
            held = min(held, int(lanes * cluster.gpus_per_worker / gpus))
        update["actors"] = (1, max(held, 1))
    return scoring.model_copy(update=update)


def demand(config: RunConfig, found: MemoryAccount | None) -> Demand:
    """What a job's workers need.

    Args:
        found: the run's memory account; None leaves memory unchecked.
    """
    cluster = config.cluster
    device = host = 0.0
    if found is not None:
        device = max(found.device[stage].total for stage in ("training", "evaluation")) / 1e9
        host = found.host.total / 1e9
    on_gpu = cluster.gpus_per_worker > 0
    return Demand(
        cluster.workers_per_job,
        cluster.cpus_per_worker,
        cluster.gpus_per_worker,
        # A worker computes on one GPU, or on its share of one.
        gpu_memory_gb=device / min(cluster.gpus_per_worker, 1) if on_gpu else 0.0,
        memory_gb=host if on_gpu else device + host,
        accelerator=cluster.accelerator if on_gpu else None,
    )


def head_memory(lanes: int) -> float:
    """GB of memory that the head needs with `lanes` jobs side by side."""
    return HEAD_GB + JOB_GB * lanes


def lanes_of(cluster: ClusterConfig, need: Demand) -> int:
    """Jobs that run side by side: what the node types hold, no more than are asked for.

    Raises:
        ClusterError: the node types can never hold one job, or the head not so many.
    """
    asked = cluster.max_concurrent_jobs
    if not cluster.node_types:
        lanes = asked or UNCHECKED_LANES
    else:
        held = jobs_at_once(cluster, need)
        lanes = min(asked or held, held)
    if cluster.head_memory_gb and head_memory(lanes) > cluster.head_memory_gb:
        fit = int((cluster.head_memory_gb - HEAD_GB) / JOB_GB)
        less = f", or set cluster.max_concurrent_jobs to {fit}" if fit >= 1 else ""
        raise ClusterError(
            f"cluster.head_memory_gb {cluster.head_memory_gb:g}: {lanes} jobs side by side need a "
            f"head with {head_memory(lanes):.0f} GB ({HEAD_GB:g}, and {JOB_GB:g} for each); take a "
            f"larger head{less}"
        )
    return lanes


def jobs_at_once(cluster: ClusterConfig, need: Demand) -> int:
    """Jobs that the cluster's node types hold side by side.

    Raises:
        ClusterError: not even one; says what is needed and what the node types offer.
    """
    workers = sum(kind.max_nodes * _workers_on(kind, need) for kind in cluster.node_types)
    if workers < need.workers:
        largest = max(cluster.node_types, key=lambda kind: (kind.gpus, kind.cpus))
        nodes = "node" if largest.max_nodes == 1 else "nodes"
        raise ClusterError(
            f"cluster: a job needs {need}; the largest node type offers {_offer(largest)} on at "
            f"most {largest.max_nodes} {nodes} ({largest.name}), and all node types together hold "
            f"{workers} such workers: name larger node types in cluster.node_types, or ask for "
            "less (cluster.workers_per_job, gpus_per_worker, training.method)"
        )
    return workers // need.workers


def _workers_on(kind: NodeType, need: Demand) -> int:
    if need.gpus and kind.gpu_memory_gb and need.gpu_memory_gb > kind.gpu_memory_gb:
        return 0
    if need.accelerator and kind.accelerator not in (None, need.accelerator):
        return 0
    workers = kind.holds(need.cpus, need.gpus)
    if need.memory_gb and kind.memory_gb:
        workers = min(workers, int(kind.memory_gb / need.memory_gb + 1e-9))
    return workers


def _gpu(accelerator: str | None) -> str:
    return f"{accelerator} GPU" if accelerator else "GPU"


def _offer(kind: NodeType) -> str:
    parts = [f"{kind.cpus:g} CPU"]
    if kind.gpus:
        memory = f" of {kind.gpu_memory_gb:g} GB" if kind.gpu_memory_gb else ""
        parts.insert(0, f"{kind.gpus:g} {_gpu(kind.accelerator)}{memory}")
    if kind.memory_gb:
        parts.append(f"{kind.memory_gb:g} GB memory")
    return ", ".join(parts)
