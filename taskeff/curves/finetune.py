"""Train one cell (task, budget, seed) from base weights.

Packed batches and weights restored from host memory between cells are why this is a loop of its
own on accelerate rather than transformers' Trainer: a batch is one packed row, not B padded ones.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel, get_cosine_schedule_with_warmup

from taskeff.config import TrainingConfig
from taskeff.packing import PackedBatch, answer_logits, batches
from taskeff.tasks.prompts import TokenizedExample

MIN_BATCH = 4


@dataclass(frozen=True)
class Training:
    """What happened while one cell trained; losses are means over answer tokens, in nats."""

    steps: int
    batch_size: int
    losses: list[float] = field(repr=False)
    validation_losses: dict[int, float] = field(repr=False)
    best_step: int
    tokens: int
    seconds: float


class FineTuner:
    """Fine-tunes one model again and again, each time from the same base weights.

    The starting values of the trainable weights (all of them, or the adapters') stay in host
    memory; `restore` copies them back, so the model is read from disk once for a whole row.
    """

    def __init__(self, model: PreTrainedModel, config: TrainingConfig, *, seed: int):
        self.config = config
        self.accelerator = Accelerator(cpu=model.device.type == "cpu")
        torch.manual_seed(seed)
        if config.method == "lora":
            model = _with_adapters(model, config)
        if config.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        self.model = self.accelerator.prepare_model(model)
        self._base = self._snapshot()

    def restore(self) -> None:
        """Put the base weights back."""
        self._load(self._base)

    def train(
        self,
        examples: Sequence[TokenizedExample],
        validation: Sequence[TokenizedExample] = (),
        *,
        seed: int,
        on_step: Callable[[int, int, float], None] | None = None,
    ) -> Training:
        """Train from base weights; the best weights stay in the model.

        Without early stopping the last weights are the best. `on_step(step, steps, loss)` is
        called after every optimiser step.
        """
        started = time.perf_counter()
        self.restore()
        torch.manual_seed(seed)
        batch_size, steps = schedule(self.config, len(examples))
        optimizer, scheduler = self._optimizer(steps)
        order = _order(len(examples), batch_size, seed)
        stopping = _Stopping(self.config.early_stopping, self._snapshot) if validation else None
        losses: list[float] = []
        tokens = 0
        for step in range(1, steps + 1):
            batch = [examples[index] for index in next(order)]
            loss, used = self._accumulate(batch)
            tokens += used
            self.accelerator.clip_grad_norm_(self._trainable(), self.config.max_grad_norm)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss)
            if on_step:
                on_step(step, steps, loss)
            if stopping and stopping.due(step):
                stopping.see(step, self.loss(validation))
                if stopping.exhausted:
                    break
        if stopping and stopping.best is not None:
            self._load(stopping.best)
        self.model.eval()
        return Training(
            steps=len(losses),
            batch_size=batch_size,
            losses=losses,
            validation_losses=stopping.losses if stopping else {},
            best_step=stopping.best_step if stopping and stopping.best_step else len(losses),
            tokens=tokens,
            seconds=time.perf_counter() - started,
        )

    @torch.no_grad()
    def loss(self, examples: Sequence[TokenizedExample]) -> float:
        """Mean negative log-likelihood over the answer tokens of `examples`."""
        self.model.eval()
        total, count = 0.0, 0
        for batch in self._packed(examples):
            total += float(_token_losses(self.model, batch).sum())
            count += len(batch.targets)
        return total / count

    def _accumulate(self, batch: Sequence[TokenizedExample]) -> tuple[float, int]:
        self.model.train()
        answer_tokens = sum(len(example.answer_ids) for example in batch)
        world = self.accelerator.num_processes
        mine = batch[self.accelerator.process_index :: world]
        total = torch.zeros((), device=self.accelerator.device)
        used = 0
        for packed in self._packed(mine):
            # Workers' gradients are averaged, so each scales its sum up by their number.
            loss = _token_losses(self.model, packed).sum() / answer_tokens
            self.accelerator.backward(loss * world)
            total += loss.detach()
            used += packed.n_tokens
        everywhere: Any = self.accelerator.reduce(total, "sum")
        return float(everywhere), used

    def _packed(self, examples: Sequence[TokenizedExample]) -> Iterator[PackedBatch]:
        for _, batch in batches(examples, max_tokens=self.config.max_tokens_per_pack):
            yield batch.to(self.accelerator.device)

    def _optimizer(
        self, steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        optimizer = torch.optim.AdamW(
            self._trainable(),
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
        )
        scheduler = get_cosine_schedule_with_warmup(
            optimizer, math.ceil(self.config.warmup_ratio * steps), steps
        )
        return self.accelerator.prepare_optimizer(optimizer), scheduler

    def _trainable(self) -> list[torch.nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    def _snapshot(self) -> list[Tensor]:
        return [p.detach().to("cpu", copy=True) for p in self._trainable()]

    @torch.no_grad()
    def _load(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self._trainable(), values, strict=True):
            parameter.copy_(value)


class _Stopping:
    def __init__(self, config, snapshot: Callable[[], list[Tensor]]):
        self.config = config
        self._snapshot = snapshot
        self.losses: dict[int, float] = {}
        self.best: list[Tensor] | None = None
        self.best_step: int | None = None

    def due(self, step: int) -> bool:
        return self.config is not None and step % self.config.every_steps == 0

    def see(self, step: int, loss: float) -> None:
        if self.best_step is None or loss < self.losses[self.best_step]:
            self.best, self.best_step = self._snapshot(), step
        self.losses[step] = loss

    @property
    def exhausted(self) -> bool:
        seen_since = [s for s in self.losses if self.best_step is not None and s > self.best_step]
        return len(seen_since) >= self.config.patience


def schedule(config: TrainingConfig, n_examples: int) -> tuple[int, int]:
    """(examples per optimiser step, optimiser steps) for a cell of `n_examples`."""
    batch_size = min(config.batch_size, n_examples)
    if config.scale_batch:
        batch_size = min(batch_size, max(MIN_BATCH, n_examples // 4))
    steps = config.max_steps
    if config.epochs is not None:
        steps = min(steps, math.ceil(config.epochs * n_examples / batch_size))
    return batch_size, steps


def _order(n_examples: int, batch_size: int, seed: int) -> Iterator[list[int]]:
    """Batches of indices for ever: shuffled passes joined end to end, no example twice in a batch
    unless a pass ends inside it."""
    rng = random.Random(f"{seed}:order")
    queue: list[int] = []
    while True:
        while len(queue) < batch_size:
            epoch = list(range(n_examples))
            rng.shuffle(epoch)
            queue += epoch
        yield queue[:batch_size]
        queue = queue[batch_size:]


def _token_losses(model: torch.nn.Module, batch: PackedBatch) -> Tensor:
    return torch.nn.functional.cross_entropy(
        answer_logits(model, batch).float(), batch.targets, reduction="none"
    )


def _with_adapters(model: PreTrainedModel, config: TrainingConfig) -> PreTrainedModel:
    from peft import LoraConfig, get_peft_model

    adapters = LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, adapters)  # type: ignore[return-value]
