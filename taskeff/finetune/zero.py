"""DeepSpeed ZeRO as a strategy."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from taskeff.errors import ConfigError
from taskeff.finetune.strategy import Strategy, allocate
from taskeff.finetune.workers import ensure_group


class ZeRO(Strategy):
    """DeepSpeed ZeRO by the stage of `deepspeed_config`; bfloat16 weights have float32 masters.

    One engine serves all cells: engines made one after the other keep each other's memory.
    """

    name = "deepspeed"

    def _wrap(self) -> None:
        settings = dict(self.config.deepspeed_config or {})
        stage = settings.get("zero_optimization", {}).get("stage", 0)
        if stage not in (1, 2, 3):
            raise ConfigError(
                f"training.deepspeed_config: zero_optimization.stage is {stage}; "
                "set 1, 2 or 3, or use strategy ddp"
            )
        try:
            import deepspeed
        except ImportError:
            raise ConfigError(
                "training.strategy deepspeed needs DeepSpeed: pip install 'taskeff[deepspeed]'"
            ) from None
        deepspeed.utils.logging.logger.setLevel(logging.WARNING)
        half = next(self.module.parameters()).dtype == torch.bfloat16
        settings |= {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": self.config.max_grad_norm,
            "bf16": {"enabled": half or self.config.mixed_precision == "bf16"},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        }
        ensure_group(self.workers)
        self.sharded = stage == 3
        if self.sharded:
            # Shards one parameter at a time: the whole model is never on the device.
            deepspeed.zero.Init(module=self.module, config_dict_or_path=settings)
        self.optimizer = self._adamw(self.trainable().values())
        engine, *_ = deepspeed.initialize(
            model=self.module, optimizer=self.optimizer, config=settings
        )
        self._engine: Any = engine

    def start(self, steps: int, *, done: int = 0) -> None:
        self._engine.optimizer.refresh_fp32_params()
        allocate(self.optimizer, self._masters())
        self._schedule(steps, done)

    def forward_model(self) -> nn.Module:
        return self._engine

    @contextmanager
    def one_pass(self, *, last: bool) -> Iterator[None]:
        self._engine.set_gradient_accumulation_boundary(last)
        yield

    def backward(self, loss: Tensor) -> None:
        self._engine.backward(loss)

    def step(self) -> None:
        self._engine.step()
        self.scheduler.step()

    def weights(self) -> list[Tensor]:
        return [getattr(p, "ds_tensor", p).detach() for p in self.trainable().values()]

    def refresh(self) -> None:
        # Stage 3 keeps small weights gathered beside their shards.
        gathered = getattr(self._engine.optimizer, "persistent_parameters", [])
        if gathered:
            gathered[0].partition(gathered)
            gathered[0].all_gather(gathered)

    def state(self) -> dict[str, Tensor]:
        rank = self.workers.process_index
        found = {f"rank{rank}/weight/{i}": weight for i, weight in enumerate(self.weights())}
        for i, master in enumerate(self._masters()):
            found[f"rank{rank}/master/{i}"] = master.detach()
            for key, value in self.optimizer.state[master].items():
                found[f"rank{rank}/{key}/{i}"] = value
        return found

    def whole_weights(self) -> Iterator[tuple[str, Tensor]]:
        import deepspeed

        for name, parameter in self.module.named_parameters():
            if parameter.requires_grad or self.config.method == "full":
                with deepspeed.zero.GatheredParameters([parameter], enabled=self.sharded):
                    yield name, parameter.detach().to("cpu", copy=True)

    def computing(self) -> AbstractContextManager[Any]:
        return nullcontext()  # the engine has cast the weights

    def close(self) -> None:
        self._engine.destroy()

    def _masters(self) -> list[Tensor]:
        """The float32 partitions that AdamW updates; stage 3 lists them with its own object."""
        listed = [p for group in self.optimizer.param_groups for p in group["params"]]
        return listed or list(self._engine.optimizer.fp32_partitioned_groups_flat)
