"""Which strategy a configuration means."""

from __future__ import annotations

import logging

import torch
from accelerate import PartialState
from torch import nn

from taskeff.config import TrainingConfig
from taskeff.errors import ConfigError
from taskeff.finetune.strategy import Name, Replicated, Sharded, Strategy
from taskeff.finetune.zero import ZeRO

log = logging.getLogger(__name__)

REPLICA_LIMIT = 8 * 2**30  # bytes; auto shards what takes more per worker than this


def choose(config: TrainingConfig, model: nn.Module, workers: int) -> Name:
    """The strategy that `config.strategy` means for `model`, logged.

    auto: single on one worker; on several ddp while a whole replica (weights, and for those that
    train a gradient and AdamW's two moments) takes at most `REPLICA_LIMIT` bytes, else fsdp.
    """
    if config.strategy != "auto":
        return config.strategy
    size = sum(
        p.numel() * (4 * _trained_bytes(config, p) if p.requires_grad else p.element_size())
        for p in model.parameters()
    )
    name: Name = "single" if workers == 1 else "ddp" if size <= REPLICA_LIMIT else "fsdp"
    log.info(
        "training.strategy auto -> %s: %d worker(s), a replica takes %.2f GiB (limit %.0f)",
        name,
        workers,
        size / 2**30,
        REPLICA_LIMIT / 2**30,
    )
    return name


def make_strategy(config: TrainingConfig, model: nn.Module, workers: PartialState) -> Strategy:
    """`model` wrapped by the strategy that `config` asks for."""
    name = choose(config, model, workers.num_processes)
    if name == "single" and workers.num_processes > 1:
        raise ConfigError("training.strategy single uses one worker; use auto, ddp or fsdp")
    kinds = {"single": Strategy, "ddp": Replicated, "fsdp": Sharded, "deepspeed": ZeRO}
    return kinds[name](config, model, workers)


def _trained_bytes(config: TrainingConfig, parameter: nn.Parameter) -> int:
    """Of what AdamW updates for one value of `parameter`."""
    masters = config.masters == "float32" and parameter.dtype == torch.bfloat16
    return 4 if masters else parameter.element_size()
