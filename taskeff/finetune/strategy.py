"""How a job's workers share one model: a single device, DDP or FSDP2; `zero` has DeepSpeed's.

A strategy wraps the model once for all cells of a task and seed. `weights` are the tensors of this
worker's own share; copies of them in host memory are how base and best weights are kept and put
back, so nothing is gathered and nothing is written. Works under Ray Train, torchrun and in one
process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import Any, Literal

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import get_cosine_schedule_with_warmup

from taskeff.config import TrainingConfig
from taskeff.errors import ClusterError, TaskeffError
from taskeff.finetune.workers import ensure_group
from taskeff.memory import free_bytes

_FAILED = 1 << 20

Name = Literal["single", "ddp", "fsdp", "deepspeed"]


class Strategy:
    """One device; what the other strategies have in common.

    module: the model as evaluation calls it. Every worker of a `sharded` one must call it equally
    often: see `in_step`.
    """

    name: Name = "single"
    sharded = False

    def __init__(self, config: TrainingConfig, model: nn.Module, workers: PartialState):
        self.config = config
        self.workers = workers
        self.device = _device(workers)
        self.module = model
        self._dtype = next(model.parameters()).dtype
        trained = {p.dtype for p in model.parameters() if p.requires_grad}
        self._masters_kept = config.masters == "float32" and torch.bfloat16 in trained
        self._wrap()

    @cached_property
    def optimizer(self) -> torch.optim.AdamW:
        """AdamW on `trainable`, one for all cells: a new one's moments would stand beside the old
        one's, which the schedule's own cycle of references keeps alive."""
        # Fused on CUDA: the other kernels hold temporaries as large as the weights.
        return self._adamw(self.trainable().values(), fused=self.device.type == "cuda" or None)

    def start(self, steps: int, *, done: int = 0) -> None:
        """The optimiser as before its first step, its moments where the last cell's were, and a
        schedule of `steps` steps of which `done` are done already."""
        allocate(self.optimizer, self.trainable().values())
        self._schedule(steps, done)

    def forward_model(self) -> nn.Module:
        """What a training step calls."""
        return self.module

    def one_pass(self, *, last: bool) -> AbstractContextManager[Any]:
        """Around a forward and backward pass; `last` of an optimiser step."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of this worker's loss; workers' gradients are averaged."""
        loss.backward()

    def step(self) -> None:
        """Clip, update, advance the schedule."""
        nn.utils.clip_grad_norm_(self.trainable().values(), self.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.scheduler.step()

    def trainable(self) -> dict[str, nn.Parameter]:
        """Parameters that train, by name."""
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    def weights(self) -> list[Tensor]:
        """This worker's share of every trainable weight, writable in place."""
        return [_local(p.detach()) for p in self.trainable().values()]

    def snapshot(self, into: list[Tensor] | None = None) -> list[Tensor]:
        """A copy of `weights` in host memory, pinned beside a GPU; in `into`, an earlier one."""
        weights = self.weights()
        pinned = self.device.type == "cuda"
        if into is None:
            into = [torch.empty_like(w, device="cpu", pin_memory=pinned) for w in weights]
        for copy, weight in zip(into, weights, strict=True):
            copy.copy_(weight)
        return into

    @torch.no_grad()
    def load(self, values: Sequence[Tensor]) -> None:
        """Put a snapshot back."""
        for weight, value in zip(self.weights(), values, strict=True):
            weight.copy_(value)
        self.refresh()

    def refresh(self) -> None:
        """To be called after `weights` were written to."""

    def state(self) -> dict[str, Tensor]:
        """What a cell is resumed from beside its progress: weights and moments, not copied."""
        found: dict[str, Tensor] = {}
        for name, parameter in self.trainable().items():
            found[f"weight/{name}"] = parameter.detach()
            for key, value in self.optimizer.state[parameter].items():
                found[f"{key}/{name}"] = value
        return found

    def whole_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight that is worth keeping, gathered, in host memory; a collective call."""
        for name, parameter in self.module.named_parameters():
            if parameter.requires_grad or self.config.method == "full":
                whole = _whole(parameter.detach()).cpu()
                yield name, whole.to(self._dtype) if self._masters_kept else whole

    def computing(self) -> AbstractContextManager[Any]:
        """The precision of forward passes."""
        if not self._half:
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    @property
    def _half(self) -> bool:
        """Whether float32 weights compute in bfloat16."""
        return self._masters_kept or self.config.mixed_precision == "bf16"

    def _to_masters(self, module: nn.Module) -> nn.Module:
        """`module`, its trainable bfloat16 weights in float32 where these are to be updated."""
        for parameter in module.parameters() if self._masters_kept else ():
            if parameter.requires_grad and parameter.dtype == torch.bfloat16:
                parameter.data = parameter.data.float()
        return module

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """Inside, workers may call `module` as often as each likes.

        A forward pass of a sharded model is a collective: before each one workers agree that one
        comes, and those that have finished take part with a token of their own until all have.

        Raises:
            ClusterError: another worker failed; the worker itself raises its own error.
        """
        if not self.sharded or self.workers.num_processes == 1:
            yield
            return
        joining = False

        def announce(*_: Any) -> None:
            if not joining:
                self._total(1)

        hook = self.module.register_forward_pre_hook(announce)
        try:
            yield
            joining = True
            while self._total(0):
                self._pass_idly()
        except ClusterError:
            raise
        except TaskeffError:
            self._total(_FAILED, check=False)
            raise
        finally:
            hook.remove()

    def close(self) -> None:
        """Let go of what outlives the model."""

    @torch.no_grad()
    def _pass_idly(self) -> None:
        token = torch.zeros((1, 1), dtype=torch.long, device=self.device)
        with self.computing():
            self.module(input_ids=token, use_cache=False)

    def _total(self, count: int, *, check: bool = True) -> int:
        counts = torch.tensor(count, device=self.device)
        dist.all_reduce(counts)
        total = int(counts)
        if check and total >= _FAILED:
            raise ClusterError("another worker of this job failed; its own log says why")
        return total

    def _wrap(self) -> None:
        self._to_masters(self.module).to(self.device)

    def _adamw(self, parameters: Any, *, fused: bool | None = None) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            parameters,
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
            fused=fused,
        )

    def _schedule(self, steps: int, done: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] = self.config.learning_rate
        warmup = math.ceil(self.config.warmup_ratio * steps)
        self.scheduler = get_cosine_schedule_with_warmup(
            self.optimizer, warmup, steps, last_epoch=done - 1
        )


class Replicated(Strategy):
    """The whole model on every worker, gradients averaged (DistributedDataParallel)."""

    name = "ddp"

    def _wrap(self) -> None:
        super()._wrap()
        ensure_group(self.workers)
        self._ddp = nn.parallel.DistributedDataParallel(self.module, broadcast_buffers=False)

    def forward_model(self) -> nn.Module:
        return self._ddp

    def one_pass(self, *, last: bool) -> AbstractContextManager[Any]:
        return nullcontext() if last else self._ddp.no_sync()


class Sharded(Strategy):
    """Weights, gradients and moments sharded by transformer block (FSDP2)."""

    name = "fsdp"
    sharded = True

    def _wrap(self) -> None:
        ensure_group(self.workers)
        mesh = init_device_mesh(self.device.type, (self.workers.num_processes,))
        policy = MixedPrecisionPolicy()
        if self._half:
            policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        # Block by block: a whole model of masters is never in a worker's memory.
        for block in _blocks(self.module):
            fully_shard(self._to_masters(block), mesh=mesh, mp_policy=policy)
        self._to_masters(self.module)
        # The root too gives its weights back after a pass: between passes all are shards.
        fully_shard(self.module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
        # The first pass makes the buffers that weights are gathered into. Were it one of
        # evaluation, in inference mode, they could never be trained with.
        self._pass_idly()

    @contextmanager
    def in_step(self) -> Iterator[None]:
        with self._gathered(), super().in_step():
            yield

    @contextmanager
    def _gathered(self) -> Iterator[None]:
        """Inside, every worker holds the whole model, where all have room for it and as much
        again: else each decoded token gathers every block anew."""
        half = torch.bfloat16.itemsize if self._half else None
        sizes = (p.numel() * (half or p.element_size()) for p in self.module.parameters())
        room = 2 * sum(sizes) <= free_bytes(self.device)
        if self._total(int(room)) < self.workers.num_processes:
            yield
            return
        model: Any = self.module
        model.set_reshard_after_forward(False)
        self._pass_idly()
        try:
            yield
        finally:
            model.set_reshard_after_forward(True)
            for part in model.modules():
                if isinstance(part, FSDPModule):
                    part.reshard()


def allocate(optimizer: torch.optim.AdamW, parameters: Any) -> None:
    """AdamW's state as before its first step, whatever it was: zeros, there to be filled in."""
    for parameter in parameters:
        state = optimizer.state[parameter]
        if not state:
            # Fused kernels count their steps on the device.
            fused = optimizer.param_groups[0]["fused"]
            state["step"] = torch.zeros((), device=parameter.device if fused else None)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        for value in state.values():
            value.zero_()


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The model's transformer blocks, by the class names that transformers lists for it."""
    names = {n for m in model.modules() for n in getattr(m, "_no_split_modules", None) or ()}
    return [module for module in model.modules() if type(module).__name__ in names]


def _device(workers: PartialState) -> torch.device:
    return workers.device or torch.device("cpu")


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
