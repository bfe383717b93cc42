"""What memory a run takes: the peak of one worker at every stage, by what holds it, in bytes.

Weights, gradients and moments are arithmetic; what passes take is found on fake tensors
(`passes`). Packs are full: rows of `ROW` tokens, answers of `coslow.max_new_tokens`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from taskeff.coslow.gradients import MAX_TOKENS, Part, Plan
from taskeff.coslow.linears import LoRA
from taskeff.errors import first_line
from taskeff.models import skeleton
from taskeff.run.passes import DTYPES, Model, count, decoding_bytes, training_bytes
from taskeff.tasks.prompts import TokenizedExample

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from taskeff.config import RunConfig

log = logging.getLogger(__name__)
ROW = 128
ZERO_DEFAULTS = {"reduce_bucket_size": 5e8, "stage3_max_live_parameters": 1e9}
USED_SHARE = 0.8
"""What optional copies may bring a GPU's use to; `memory.free_bytes` plans with as much."""


@dataclass(frozen=True)
class Peak:
    """Bytes at one stage. parts: by what holds them."""

    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        return ", ".join(f"{name} {size / 1e9:.1f}" for name, size in self.parts.items() if size)


@dataclass(frozen=True)
class MemoryAccount:
    """Peaks of one worker.

    Attributes:
        device: stage (training, evaluation, confidence, gradients) -> on its GPU, or its share of
            the machine's memory where it has none.
        host: host memory beside that of a worker of training.
        complete: False where the architecture's code does not run on fake tensors: passes are not
            in it then.
    """

    device: Mapping[str, Peak]
    host: Peak
    complete: bool = True


def memory_account(config: RunConfig, architecture: PreTrainedConfig) -> MemoryAccount:
    """The account of a run of `config` with a model of that architecture.

    Raises:
        ModelError: it is no causal language model.
    """
    found = _Sums(config, architecture)
    device = {"training": found.training(), "evaluation": found.evaluation()}
    if config.scoring.engine == "builtin":
        device["confidence"] = found.confidence()
    device["gradients"] = found.gradients()
    return MemoryAccount(device, found.host(), found.complete)


def gpu_memory(config: RunConfig) -> float | None:
    """Bytes of the largest GPU that a job may be placed on; None where none is stated."""
    cluster = config.cluster
    stated = [
        kind.gpu_memory_gb
        for kind in cluster.node_types
        if kind.gpu_memory_gb
        and (cluster.accelerator is None or kind.accelerator in (None, cluster.accelerator))
    ]
    return max(stated) * 1e9 if stated else None


class _Sums:
    """The sums of one configuration; `complete` once they are made."""

    def __init__(self, config: RunConfig, architecture: PreTrainedConfig):
        self.config, self.architecture = config, architecture
        self.complete = True
        self.training_config = config.training
        self.workers = config.cluster.workers_per_job
        self.on_gpu = config.cluster.gpus_per_worker > 0
        self.held = DTYPES[config.model.dtype].itemsize
        self.masters = 4 if config.masters == "float32" else self.held
        if config.training.method == "lora":
            self.masters = 4
        self.half = config.masters == "float32" or config.training.mixed_precision == "bf16"
        self.passing = 2 if self.half else self.held
        trained = Model(architecture, config.model.dtype, config.model.attn, config.training)
        self.frozen = Model(architecture, config.model.dtype, config.model.attn)
        self.count = count(trained)
        self.strategy = self._strategy()
        # What trains is held as it is updated; shards are gathered as passes need them.
        sharded = self.strategy == "fsdp" or self.stage > 0
        dtype = "float32" if self.masters == 4 and not sharded else config.model.dtype
        full = config.training.method == "full"
        self.trained = Model(
            architecture, dtype if full else config.model.dtype, config.model.attn, config.training
        )

    @property
    def stage(self) -> int:
        """ZeRO's; 0 without DeepSpeed."""
        settings = (self.training_config.deepspeed_config or {}).get("zero_optimization", {})
        return settings.get("stage", 0) if self.strategy == "deepspeed" else 0

    def training(self) -> Peak:
        parts = self._state()
        gradients = self.count.trained * self.masters
        if self.strategy == "ddp":
            gradients *= 2  # its buckets are a second copy
        if self.stage:
            gradients = self.count.trained * self.held // (self.workers if self.stage > 1 else 1)
        elif self.strategy == "fsdp":
            gradients //= self.workers
        parts["gradients"] = gradients
        tokens = self.training_config.max_tokens_per_pack
        answers = self.config.coslow.max_new_tokens
        share = math.ceil(self.training_config.batch_size / self.workers)
        rows = max(1, min(share, tokens // max(ROW, answers + 1)))
        phases = self._measured(
            lambda: training_bytes(self.trained, tokens, rows, answers, half=self.half), [0, 0, 0]
        )
        parts["passes"] = max(phases)
        if self.strategy == "fsdp":
            parts["passes"] = self._sharded_passes(*phases)
        elif self.stage:
            parts["gathered"] = self._zero_buffers()
        if not self.on_gpu:  # AdamW's temporaries; its fused kernels need none
            parts["passes"] = max(parts["passes"], 2 * self.count.largest * self.masters)
        return Peak(parts)

    def evaluation(self) -> Peak:
        parts = self._state()
        tokens = self.config.evaluation.max_tokens_per_pack
        merges = self.training_config.method == "lora" and self.held == 4
        model = self.frozen if merges else self.trained
        parts["passes"] = self._decoding(model, tokens, choices=True, half=self.half)
        whole = self.count.all * self.passing
        if self.strategy == "fsdp" or self.stage == 3:
            blocks = (self.count.root + 3 * self.count.block) * self.passing
            parts["gathered"] = self._if_room(parts, whole, blocks)
        elif merges:
            parts["merged adapters"] = self._if_room(
                parts, self.count.blocks * self.count.block * 4
            )
        return Peak(parts)

    def confidence(self) -> Peak:
        tokens = self.config.coslow.max_tokens_per_pack
        passes = self._decoding(self.frozen, tokens, choices=False)
        return Peak({"weights": self._loaded(), "passes": passes})

    def gradients(self) -> Peak:
        settings = self.config.coslow
        projection = None if settings.rank is None else LoRA(settings.rank, settings.alpha)
        answers = settings.max_new_tokens
        row = TokenizedExample((0,) * max(1, ROW - answers), (0,) * answers)
        on = self.config.scoring.gpus_per_actor
        on = self.config.cluster.gpus_per_worker if on is None else on
        plan = Plan.make(
            self.architecture,
            [row] * settings.n_examples,
            projection,
            targets=settings.targets,
            max_tokens=MAX_TOKENS["cuda" if on else "cpu"],
            share_prefix=False,
        )
        model = skeleton(self.architecture, dtype=DTYPES[self.config.model.dtype])
        part = Part(model, plan, range(len(plan.batches)))
        memory = settings.gradient_memory
        if memory is None:
            capacity = gpu_memory(self.config)
            free = math.inf if capacity is None else USED_SHARE * (capacity - self._loaded())
            memory = int(min(free, 1e18))
        groups = part.groups(memory, contracted=True)
        passes = part.need(groups, contracted=True)
        return Peak({"weights": self._loaded(), "gradients and passes": passes})

    def host(self) -> Peak:
        """A worker reads the whole model before it shares it; then come copies of its share."""
        trained = self.count.trained * self.masters
        if self.strategy == "fsdp" or self.stage == 3:
            trained //= self.workers
        copies = 2 if self.training_config.early_stopping else 1
        parts = {"copies of weights": copies * trained}
        alone = self.workers == 1 and self.strategy == "single"
        loaded = self._loaded()
        if self.strategy == "ddp" and self.masters > self.held:
            loaded += self.count.trained * self.masters
        if not (alone and not self.on_gpu):
            parts["the model as it is read"] = max(0, loaded - sum(parts.values()))
        if self.stage and self._offloaded:
            parts["masters and moments"] = self._zero_masters()
        return Peak(parts)

    def _strategy(self) -> str:
        from taskeff.finetune.strategies import REPLICA_LIMIT

        if self.training_config.strategy != "auto":
            return self.training_config.strategy
        if self.workers == 1:
            return "single"
        frozen = self.count.all - self.count.trained
        size = 4 * self.masters * self.count.trained + frozen * self.held
        return "ddp" if size <= REPLICA_LIMIT else "fsdp"

    def _state(self) -> dict[str, int]:
        """Weights and moments."""
        frozen = (self.count.all - self.count.trained) * self.held
        weights = frozen + self.count.trained * (self.held if self.stage else self.masters)
        moments = 2 * self.count.trained * self.masters
        if self.strategy == "fsdp" or self.stage == 3:
            weights //= self.workers
        if self.strategy == "fsdp":
            moments //= self.workers
        if self.stage:
            moments = 0 if self._offloaded else self._zero_masters()
        return {"weights": weights, "moments": moments}

    def _sharded_passes(self, forward: int, blocks: int, end: int) -> int:
        """What FSDP2 gathers and reduces around a pass's own peaks, as `fully_shard` was seen to
        (`tests/run/test_memory_account.py`)."""
        n, p = self.count, self.passing
        reduced = 4 if self.half else p
        root, block = n.root * p, n.block * p
        head = (n.trained_root - n.embedding) * p
        return max(
            2 * root + 3 * block,  # gathered, and taken apart
            forward + root + 2 * block,
            blocks + root + head + 3 * block + n.trained_block * (reduced - p),
            # The root's gradients go last: with a block's, or with their own sum.
            n.trained_root * (p + reduced) + n.trained_block * reduced,
            n.trained_root * (reduced + reduced // self.workers) + n.embedding * p,
            end + root,
        )

    @property
    def _zero(self) -> dict[str, Any]:
        return (self.training_config.deepspeed_config or {})["zero_optimization"]

    @property
    def _offloaded(self) -> bool:
        return (self._zero.get("offload_optimizer") or {}).get("device", "none") != "none"

    def _zero_masters(self) -> int:
        """Masters, moments, and the gradients of a step in float32."""
        return 16 * self.count.trained // self.workers

    def _zero_buffers(self) -> int:
        size = self._zero.get("reduce_bucket_size", ZERO_DEFAULTS["reduce_bucket_size"])
        bucket = int(min(float(size), self.count.trained)) * self.held if size != "auto" else 0
        if self.stage < 3:
            return 2 * bucket
        live = self._zero.get("stage3_max_live_parameters")
        live = ZERO_DEFAULTS["stage3_max_live_parameters"] if live in (None, "auto") else live
        return 2 * bucket + int(min(float(live), self.count.all)) * self.held

    def _loaded(self) -> int:
        adapters = self.count.trained if self.training_config.method == "lora" else 0
        return (self.count.all - adapters) * self.held

    def _decoding(self, model: Model, tokens: int, **how: bool) -> int:
        new = self.config.coslow.max_new_tokens
        row = ROW - new if new < ROW else 1
        return self._measured(lambda: decoding_bytes(model, tokens, row, new, **how), 0)

    def _if_room(self, parts: Mapping[str, int], wanted: int, least: int = 0) -> int:
        """`wanted`, where a GPU has room for it and as much again beside `parts`."""
        capacity = gpu_memory(self.config) if self.on_gpu else None
        held = sum(parts.values()) - parts["passes"]
        fits = capacity is None or 2 * wanted <= USED_SHARE * (capacity - held)
        return wanted if fits else least

    def _measured(self, measure: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return measure()
        except Exception as error:  # noqa: BLE001 - an architecture may ask what a tensor contains
            if self.complete:
                log.warning(
                    "passes are not in the memory account, this architecture does not run on "
                    "tensors without contents: %s",
                    first_line(error),
                )
            self.complete = False
            return otherwise
