"""Train one cell (task, budget, seed) from base weights.

Why this is a loop of its own rather than transformers' Trainer: a batch is one packed row, not B
padded ones, and weights come back from host memory between cells (`benchmarks/training.py`). How
workers share the model is `strategy`.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor
from transformers import PreTrainedModel

from taskeff.config import EarlyStopping, TrainingConfig
from taskeff.errors import StorageError
from taskeff.finetune.adapters import with_adapters
from taskeff.finetune.checkpoints import Checkpoints
from taskeff.finetune.strategies import make_strategy
from taskeff.finetune.workers import deal
from taskeff.lm.device import on_device
from taskeff.lm.packing import PackedBatch, answer_logits, batches, n_batches
from taskeff.tasks.prompts import TokenizedExample

log = logging.getLogger(__name__)

MIN_BATCH = 4


@dataclass(frozen=True)
class Training:
    """What happened while one cell trained; losses are means over answer tokens, in nats.

    `tokens` went through the model while training, over all workers; `resumed_at` is the step of
    the stored state that the cell went on from, and `seconds` count from there.
    """

    steps: int
    batch_size: int
    losses: list[float] = field(repr=False)
    validation_losses: dict[int, float] = field(repr=False)
    best_step: int
    tokens: int
    seconds: float
    strategy: str
    workers: int
    resumed_at: int = 0


class FineTuner:
    """Fine-tunes one model again and again, each time from the same base weights.

    Each worker's share of the trainable weights (all of them, or the adapters') stays in host
    memory; `restore` copies it back, so the model is read from disk once for all cells.

    Args:
        model: on the workers' device, or in host memory where the strategy shards it.
        seed: draws the adapters' starting weights.
        workers: default: this process's own, on the model's device.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        config: TrainingConfig,
        *,
        seed: int,
        workers: PartialState | None = None,
    ):
        self.config = config
        self.workers = workers or PartialState(cpu=model.device.type == "cpu")
        torch.manual_seed(seed)
        if config.method == "lora":
            model = with_adapters(model, config)
        if config.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        self.strategy = make_strategy(config, model, self.workers)
        self._base = self.strategy.snapshot()
        self._best: list[Tensor] | None = None

    @property
    def model(self) -> Any:
        """The model as evaluation calls it."""
        return self.strategy.module

    def restore(self) -> None:
        """Put the base weights back."""
        self.strategy.load(self._base)

    def train(
        self,
        examples: Sequence[TokenizedExample],
        validation: Sequence[TokenizedExample] = (),
        *,
        seed: int,
        on_step: Callable[[int, int, float], None] | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> Training:
        """Train from base weights, or from the newest checkpoint; the best weights stay in the
        model.

        Without early stopping the last weights are the best. `on_step(step, steps, loss)` is
        called after every optimiser step.
        """
        started = time.perf_counter()
        torch.manual_seed(seed)
        batch_size, steps = schedule(self.config, len(examples))
        state = _State()
        resumed_at = self._start(state, steps, checkpoints)
        stopping = self.config.early_stopping if validation else None
        order = islice(order_of(len(examples), batch_size, seed), resumed_at, None)
        while state.step < steps and not state.exhausted(stopping):
            due = checkpoints is not None and checkpoints.due
            loss, tokens, due = self._step([examples[index] for index in next(order)], due)
            state.losses.append(loss)
            state.tokens += tokens
            if on_step:
                on_step(state.step, steps, loss)
            if stopping and state.step % stopping.every_steps == 0:
                state.see(self.loss(validation), self._keep)
            if checkpoints and due:
                checkpoints.save(self.strategy, state.best, state.progress())
        if state.best is not None:
            self.strategy.load(state.best)
        self.model.eval()
        return Training(
            steps=state.step,
            batch_size=batch_size,
            losses=state.losses,
            validation_losses=state.validation_losses,
            best_step=state.best_step or state.step,
            tokens=state.tokens,
            seconds=time.perf_counter() - started,
            strategy=self.strategy.name,
            workers=self.workers.num_processes,
            resumed_at=resumed_at,
        )

    @torch.no_grad()
    def loss(self, examples: Sequence[TokenizedExample]) -> float:
        """Mean negative log-likelihood over the answer tokens of `examples`."""
        self.model.eval()
        sums: list[Tensor] = []
        count = 0
        for batch, counts in self._passes(examples):
            with self.strategy.computing():
                sums.append(_token_losses(self.model, batch).sum() * counts)
            count += len(batch.targets) * counts
        total, count = self._sum(sum(torch.stack(sums).tolist()), count)
        return total / count

    def _keep(self) -> list[Tensor]:
        """A copy of the weights where the last one was: one at a time counts, of all cells."""
        self._best = self.strategy.snapshot(self._best)
        return self._best

    def _start(self, state: _State, steps: int, checkpoints: Checkpoints | None) -> int:
        """Ready weights and optimiser, by the newest checkpoint if there is one; steps done."""
        progress = checkpoints.latest(self.strategy) if checkpoints else None
        if checkpoints and progress:
            self.strategy.start(steps, done=progress["step"])
            best = None if progress["best_step"] is None else self._keep()
            try:
                checkpoints.load(self.strategy, best, progress)
            except StorageError as error:
                log.warning("%s; the cell starts again", error)
            else:
                state.set(progress, best)
                return state.step
        self.restore()
        self.strategy.start(steps)
        return 0

    def _step(self, batch: Sequence[TokenizedExample], due: bool) -> tuple[float, int, bool]:
        """One optimiser step; (loss, tokens over all workers, whether any worker is `due`)."""
        self.model.train()
        answer_tokens = sum(len(example.answer_ids) for example in batch)
        world = self.workers.num_processes
        passes = list(self._passes(batch))
        total = torch.zeros((), device=self.strategy.device)
        tokens = 0
        for index, (packed, counts) in enumerate(passes):
            with self.strategy.one_pass(last=index == len(passes) - 1):
                with self.strategy.computing():
                    losses = _token_losses(self.strategy.forward_model(), packed)
                # Workers' gradients are averaged, so each scales its sum up by their number.
                loss = losses.sum() / answer_tokens * counts
                self.strategy.backward(loss * world)
            total += loss.detach()
            tokens += packed.n_tokens * counts
        self.strategy.step()
        loss, tokens, anyone = self._sum(float(total), tokens, due)
        return loss, int(tokens), anyone > 0

    def _passes(self, examples: Sequence[TokenizedExample]) -> Iterator[tuple[PackedBatch, int]]:
        """This worker's share in packs, and 1 for each; all workers have equally many.

        A worker with fewer repeats a pack that counts 0: passes of a shared model are collective.
        """
        world = self.workers.num_processes
        limit = self.config.max_tokens_per_pack
        dealt = deal([len(e.prompt_ids) + len(e.answer_ids) for e in examples], world)
        shares = [[examples[index] for index in members] for members in dealt]
        n_passes = [n_batches(share, max_tokens=limit) for share in shares]
        mine = self.workers.process_index
        for _, batch in batches(shares[mine], max_tokens=limit):
            yield batch.to(self.strategy.device), 1
        for _ in range(max(n_passes) - n_passes[mine]):
            _, filler = next(batches(examples[:1], max_tokens=limit))
            yield filler.to(self.strategy.device), 0

    def _sum(self, *values: float) -> list[float]:
        """Each value summed over workers."""
        if self.workers.num_processes == 1:
            return list(values)
        dtype = torch.float64 if self.strategy.device.type != "mps" else torch.float32
        summed: Any = reduce(
            on_device(torch.tensor(values, dtype=dtype), self.strategy.device), "sum"
        )
        return summed.tolist()


@dataclass
class _State:
    """How far a cell is; `best` is this worker's share of the best weights, in host memory."""

    losses: list[float] = field(default_factory=list)
    validation_losses: dict[int, float] = field(default_factory=dict)
    best_step: int | None = None
    best: list[Tensor] | None = None
    tokens: int = 0

    @property
    def step(self) -> int:
        return len(self.losses)

    def see(self, loss: float, snapshot: Callable[[], list[Tensor]]) -> None:
        if self.best_step is None or loss < self.validation_losses[self.best_step]:
            self.best, self.best_step = snapshot(), self.step
        self.validation_losses[self.step] = loss

    def exhausted(self, stopping: EarlyStopping | None) -> bool:
        if stopping is None or self.best_step is None:
            return False
        return sum(step > self.best_step for step in self.validation_losses) >= stopping.patience

    def progress(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "losses": self.losses,
            "validation_losses": self.validation_losses,
            "best_step": self.best_step,
            "tokens": self.tokens,
        }

    def set(self, progress: dict[str, Any], best: list[Tensor] | None) -> None:
        self.best = best
        self.losses = progress["losses"]
        self.validation_losses = {int(k): v for k, v in progress["validation_losses"].items()}
        self.best_step = progress["best_step"]
        self.tokens = progress["tokens"]


def schedule(config: TrainingConfig, n_examples: int) -> tuple[int, int]:
    """(examples per optimiser step, optimiser steps) for a cell of `n_examples`."""
    batch_size = min(config.batch_size, n_examples)
    if config.scale_batch:
        batch_size = min(batch_size, max(MIN_BATCH, n_examples // 4))
    steps = config.max_steps
    if config.epochs is not None:
        steps = min(steps, math.ceil(config.epochs * n_examples / batch_size))
    return batch_size, steps


def order_of(n_examples: int, batch_size: int, seed: int) -> Iterator[list[int]]:
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
