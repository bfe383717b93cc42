"""Low-rank adapters: put on a model, and folded into its weights while it answers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from taskeff.config import TrainingConfig
from taskeff.memory import free_bytes


def with_adapters(model: PreTrainedModel, config: TrainingConfig) -> PreTrainedModel:
    """`model` with an adapter on every linear, which alone trains."""
    from peft import LoraConfig, get_peft_model

    adapters = LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft asks for a property that transformers is renaming.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        return get_peft_model(model, adapters)  # type: ignore[return-value]


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Inside, the adapters of float32 linears are part of their weights, where the device has room
    for these twice, so that a pass takes what one of the base model takes.

    In half precision an adapter's share of a weight would be rounded with it: there the model stays
    as it is.
    """
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

    layers: list[Any] = [one for one in model.modules() if isinstance(one, LoraLayer)]
    weights = [layer.get_base_layer().weight for layer in layers]
    size = sum(weight.nbytes for weight in weights)
    if (
        not isinstance(model, PeftModel)
        or any(weight.dtype != torch.float32 for weight in weights)
        or 2 * size > free_bytes(weights[0].device)
    ):
        yield
        return
    apart = [weight.data for weight in weights]
    with torch.no_grad():
        for layer, weight in zip(layers, weights, strict=True):
            weight.data = weight + layer.get_delta_weight(model.active_adapter)
            layer.forward = layer.get_base_layer().forward
    try:
        yield
    finally:
        # Not subtracted: that would not give back the same numbers.
        for layer, weight, before in zip(layers, weights, apart, strict=True):
            weight.data = before
            del layer.forward
