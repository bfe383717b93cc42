"""Does a run's memory fit the machines it names? What does not is refused with the setting that
makes it fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from taskeff.config import RunConfig
from taskeff.errors import ClusterError
from taskeff.run.memory_account import MemoryAccount, gpu_memory, memory_account
from taskeff.run.placement import coslow_actors

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

HOST = "host memory"
SMALLEST_PACK = 256


def checked(config: RunConfig, architecture: PreTrainedConfig) -> MemoryAccount:
    """The account of `config`.

    Raises:
        ClusterError: no stated node type has so much memory; names the stage, what takes it and
            the one setting that is enough, if there is one.
    """
    found = memory_account(config, architecture)
    for stage in (*found.device, HOST):
        room = _room(config, stage)
        if room is None or _taken(found, config, stage) <= room:
            continue
        peak = found.host if stage == HOST else found.device[stage]
        raise ClusterError(
            f"cluster: {stage} takes {_taken(found, config, stage) / 1e9:.1f} GB a worker (GB: "
            f"{peak}), the largest of cluster.node_types has {room / 1e9:g}: "
            f"{_enough(config, architecture, stage)}"
        )
    return found


def _enough(config: RunConfig, architecture: PreTrainedConfig, stage: str) -> str:
    """The first setting whose change alone makes `stage` fit, in words."""
    for setting, value in _changes(config, stage):
        section, name = setting.split(".")
        changed = getattr(config, section).model_copy(update={name: value})
        other = config.model_copy(update={section: changed})
        room = _room(other, stage)
        if room is None or _taken(memory_account(other, architecture), other, stage) <= room:
            return f"set {setting} to {str(value).lower()}"
    return "no one setting is enough; name machines with more memory, or a smaller model"


def _changes(config: RunConfig, stage: str) -> Iterator[tuple[str, Any]]:
    """What lowers a stage, the least costly first."""
    training = config.training
    if stage == "training" and not training.gradient_checkpointing:
        yield "training.gradient_checkpointing", True
    section = {"training": "training", "evaluation": "evaluation", "confidence": "coslow"}
    if stage in section:
        tokens = getattr(config, section[stage]).max_tokens_per_pack
        while tokens >= 2 * SMALLEST_PACK:
            tokens //= 2
            yield f"{section[stage]}.max_tokens_per_pack", tokens
    if stage in ("confidence", "gradients"):
        return
    if training.strategy != "single":
        for factor in (2, 4, 8):
            yield "cluster.workers_per_job", factor * config.cluster.workers_per_job
    if training.strategy == "ddp":
        yield "training.strategy", "fsdp"
    if training.method == "full":
        yield "training.method", "lora"


def _gpus(config: RunConfig, stage: str) -> float:
    if stage in ("confidence", "gradients"):
        return coslow_actors(config).gpus_per_actor or 0
    return config.cluster.gpus_per_worker


def _room(config: RunConfig, stage: str) -> float | None:
    """Bytes that one worker may have at most; None where no node type states them."""
    gpus = _gpus(config, stage)
    if gpus and stage != HOST:
        capacity = gpu_memory(config)
        return None if capacity is None else capacity * min(gpus, 1)
    stated = [kind.memory_gb for kind in config.cluster.node_types if kind.memory_gb]
    return max(stated) * 1e9 if stated else None


def _taken(found: MemoryAccount, config: RunConfig, stage: str) -> int:
    if stage == HOST:
        return found.host.total
    # Without a GPU the worker's copies lie in the same memory.
    trains = stage in ("training", "evaluation") and not _gpus(config, stage)
    return found.device[stage].total + (found.host.total if trains else 0)
