"""The schema of a run, as frozen objects; `config_file` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from taskeff.schema import read_object
from taskeff.storage import safe_part


class Section(BaseModel):
    """Settings that belong together: frozen, and no others than are named."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelConfig(Section):
    """The family's model.

    Examples:
        >>> taskeff.ModelConfig(path="model", name="mine", dtype="bfloat16").dtype
        'bfloat16'
    """

    path: str
    """A Hugging Face id or a folder with config.json, safetensors and a tokenizer."""
    name: str
    """What the family is called in artefacts; `taskeff predict --family NAME` reads it."""
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    attn: Literal["auto", "sdpa", "eager"] = "auto"

    @field_validator("name")
    @classmethod
    def _is_a_path_part(cls, value: str) -> str:
        return safe_part(value)


class TasksConfig(Section):
    """Which tasks: names of bundled tasks or paths of task files."""

    calibration: tuple[str, ...]
    held_out: tuple[str, ...] = ()
    seed: int = 0
    """Seeds every task's splits and the order its budgets are prefixes of."""
    short: Literal["error", "stop"] = "error"
    """A task with fewer training rows than the largest budget is refused, or measured up to all
    its rows; its curve is then held at its last score up to the cap, and says so."""


class EarlyStopping(Section):
    """Stop when the validation loss has not improved; the best weights are restored."""

    every_steps: int = Field(default=4, ge=1)
    patience: int = Field(default=10, ge=1)


class LoRAConfig(Section):
    """A low-rank adapter on every target linear."""

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)


_OURS_IN_DEEPSPEED = {
    "bf16",
    "fp16",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "optimizer",
    "scheduler",
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
}


class TrainingConfig(Section):
    """How one cell is fine-tuned (DESIGN of arXiv 2512.24991: full, lr 1e-5, 500 steps)."""

    budgets: tuple[int, ...] = (50, 100, 200, 500, 1000, 2500, 5000)
    seeds: tuple[int, ...] = (0,)
    method: Literal["full", "lora"] = "full"
    lora: LoRAConfig = LoRAConfig()
    learning_rate: float = Field(default=1e-5, gt=0)
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    epochs: float | None = Field(default=None, gt=0)
    max_steps: int = Field(default=500, ge=1)
    batch_size: int = Field(default=32, ge=1)
    """Examples per optimiser step over all workers; never more than a quarter of the budget's
    examples when `scale_batch` is set."""
    scale_batch: bool = False
    max_tokens_per_pack: int = Field(default=4096, ge=64)
    """Tokens that go through the model at once; a step's batch is split to fit."""
    gradient_checkpointing: bool = False
    early_stopping: EarlyStopping | None = None
    mixed_precision: Literal["no", "bf16"] = "no"
    """bf16: weights and optimiser states stay float32, passes run in bfloat16."""
    masters: Literal["float32", "none"] = "float32"
    """Where all weights of a bfloat16 model train: AdamW updates float32 copies of them and passes
    run in bfloat16, or it updates them as they are, which loses steps below their rounding."""
    strategy: Literal["auto", "single", "ddp", "fsdp", "deepspeed"] = "auto"
    """How a job's workers share the model; auto: see `taskeff.finetune.strategies.choose`."""
    deepspeed_config: dict[str, Any] | None = None
    """A DeepSpeed JSON file, read where the run is started so that workers need not find it.
    It says how to shard; optimiser, batch, clipping and precision are this section's."""
    keep_checkpoints: bool = False
    """Publish each cell's trained weights beside its result; off: nothing of a model is stored."""
    checkpoint_minutes: float | None = Field(default=None, gt=0)
    """Store a state to resume from so often inside a cell; removed once the cell is published."""

    @field_validator("mixed_precision", mode="before")
    @classmethod
    def _no_is_a_word(cls, value: Any) -> Any:
        return "no" if value is False else value  # as YAML reads an unquoted no

    @field_validator("deepspeed_config", mode="before")
    @classmethod
    def _read_deepspeed_config(cls, value: Any) -> Any:
        return read_object(value) if isinstance(value, str | Path) else value

    @model_validator(mode="after")
    def _deepspeed_fits(self) -> TrainingConfig:
        if (self.strategy == "deepspeed") != (self.deepspeed_config is not None):
            raise ValueError(
                "strategy deepspeed and deepspeed_config (configs/deepspeed/zero2.json, say) go "
                "together: give both or neither"
            )
        ours = sorted(_OURS_IN_DEEPSPEED & set(self.deepspeed_config or {}))
        if ours:
            raise ValueError(
                f"deepspeed_config sets {', '.join(ours)}, which the other fields of `training` "
                "decide: remove them"
            )
        return self

    @field_validator("budgets", "seeds")
    @classmethod
    def _sorted_and_distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value:
            raise ValueError("give at least one")
        if list(value) != sorted(set(value)):
            raise ValueError(f"must be increasing without repeats, got {list(value)}")
        if value[0] < 0:
            raise ValueError(f"must not be negative, got {value[0]}")
        return value


class EvaluationConfig(Section):
    """How a model is scored on the test split."""

    test_cap: int = Field(default=5000, ge=1)
    max_tokens_per_pack: int = Field(default=4096, ge=64)


SHARD_ROWS = 1024


class CosLowConfig(Section):
    """How CoS-Low is measured; all but the speed settings enter the fingerprint.

    Examples:
        >>> taskeff.CosLowConfig(n_examples=64).quantile
        0.1
    """

    n_examples: int = Field(default=32, ge=8)
    quantile: float = Field(default=0.1, gt=0, le=1)
    strategy: Literal["low", "random"] = "low"
    """Draw from the least confident `quantile` of the pool, or from all of it (a control)."""
    confidence_metric: Literal["mean_top_prob", "ppl"] = "mean_top_prob"
    pool_cap: int | None = Field(default=None, ge=8)
    """Score at most so many pool rows (a seeded draw)."""
    on_long: Literal["skip", "truncate"] = "skip"
    """A prompt beyond the model's window has no confidence, or loses its middle."""
    rank: int | None = Field(default=64, ge=1)
    """Of the random projection; null takes the true gradients of the weights."""
    alpha: int = Field(default=32, ge=1)
    targets: tuple[str, ...] | None = None
    """Last parts of the names of the linears whose gradients are taken (`q_proj`); default: all
    linears of the decoder blocks."""
    seed: int = 0
    max_new_tokens: int = Field(default=30, ge=1)
    max_tokens_per_pack: int = Field(default=4096, ge=64)
    gradient_memory_gb: float | None = Field(default=None, gt=0)
    """What gradients and activations may take; default: what is free on the device."""

    def deciding(self) -> dict[str, Any]:
        """The settings that decide what is measured, for digests.

        What came later is left out at its default, which is what was measured before.
        """
        speed = {"max_tokens_per_pack", "gradient_memory_gb"}
        later = {"targets": None, "strategy": "low", "on_long": "skip"}
        unchanged = {name for name, default in later.items() if getattr(self, name) == default}
        return self.model_dump(exclude=speed | unchanged)

    @property
    def gradient_memory(self) -> int | None:
        """`gradient_memory_gb` in bytes."""
        return None if self.gradient_memory_gb is None else int(self.gradient_memory_gb * 1e9)


class ScoringConfig(Section):
    """How CoS-Low of many data sets goes over the cluster; none of it changes a result but
    `shard_rows`, whose rows share batches."""

    engine: Literal["builtin", "vllm"] = "builtin"
    """`vllm` scores confidence (extra `vllm`, whole GPUs); gradients are ours."""
    shard_rows: int = Field(default=SHARD_ROWS, ge=1)
    """Rows scored, published and resumed together."""
    actors: tuple[int, int] = (1, 2)
    """Fewest and most actors that hold the model; the pool grows as work queues up. Default in a
    calibration on GPUs: up to all that its `cluster.node_types` hold."""
    cpus_per_actor: float = Field(default=0.5, gt=0)
    gpus_per_actor: float | None = Field(default=None, ge=0)
    """A fraction puts several actors on one GPU; default: as many as a worker of a calibration's
    training has, none in a ranking."""
    threads_per_actor: int = Field(default=1, ge=1)
    readers: int = Field(default=4, ge=1)
    """Most tasks that read and tokenise at once, on CPUs anywhere in the cluster."""
    cpus_per_reader: float = Field(default=0.25, gt=0)
    queue_mb: int = Field(default=256, ge=16)
    """Object-store memory that rows on their way may take; readers wait beyond it."""
    tile_examples: int = Field(default=256, ge=8)
    """Gradients of more examples than this are taken as tiles of their Gram matrix, spread over
    the actors."""
    placement_timeout: float = Field(default=30, gt=0)
    """Minutes to wait for room for the first actor, scale-up included."""

    @field_validator("actors")
    @classmethod
    def _rising(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= value[0] <= value[1]:
            raise ValueError(f"give the fewest and the most actors, [1, 2] say, got {list(value)}")
        return value


class CurveConfig(Section):
    """How scores become data efficiency, and how CoS-Low predicts it."""

    cap: int | None = Field(default=None, ge=2)
    """The budget at the curve's right end; default: the largest training budget."""
    ceiling: Literal["one", "best", "human"] = "one"
    """The score that counts as 1: fixed beforehand, or the task's best measured score, or the
    better of that and the `ceiling` of its task file (as published)."""
    kind: Literal["beta", "power"] = "beta"
    fit: Literal["fractional", "logit", "ols"] = "fractional"
    """The regression on CoS-Low: logistic by quasi-likelihood, least squares of logit(AUC), or the
    published straight line."""


class NodeType(Section):
    """One kind of machine that the cluster may start."""

    name: str
    cpus: float = Field(gt=0)
    gpus: float = Field(default=0, ge=0)
    gpu_memory_gb: float | None = Field(default=None, gt=0)
    """Memory of one GPU; unknown: not checked."""
    memory_gb: float | None = Field(default=None, gt=0)
    """The machine's memory; unknown: not checked."""
    accelerator: str | None = None
    """What Ray calls its GPUs (H100, A100, L4); unknown: taken for any kind."""
    max_nodes: int = Field(default=1, ge=1)

    def holds(self, cpus: float, gpus: float) -> int:
        """How many processes of so many CPUs and GPUs one such machine holds."""
        shares = [self.cpus / cpus]
        if gpus:
            shares.append(self.gpus / gpus)
        return int(min(shares) + 1e-9)


class ClusterConfig(Section):
    """What one job, cells that a worker group measures, asks of the Ray cluster."""

    workers_per_job: int = Field(default=1, ge=1)
    cpus_per_worker: float = Field(default=1, gt=0)
    gpus_per_worker: float = Field(default=0, ge=0)
    accelerator: str | None = None
    """The kind of GPU that jobs are placed on, as Ray calls it (H100, A100, L4); default: any."""
    max_concurrent_jobs: int | None = Field(default=None, ge=1)
    """Jobs that run side by side, at most; default: what `node_types` hold, 2 without them."""
    task_seeds_per_job: int = Field(default=1, ge=1)
    """Tasks and seeds measured one after the other by one worker group: starting a group costs some
    25 seconds of imports, which tiny tasks should share; those of their own job fail alone."""
    threads_per_worker: int = Field(default=1, ge=1)
    max_failures: int = Field(default=2, ge=0)
    """How often a job whose worker, node or trial died is started again."""
    node_types: tuple[NodeType, ...] = ()
    """The machines the cluster may start, the head left out; what can never be placed on them is
    refused at once."""
    head_memory_gb: float | None = Field(default=None, gt=0)
    """The head's memory, where the driver and a process per running job live; unknown: not
    checked."""
    max_hours: float | None = Field(default=None, gt=0)
    """A start of the run ends after so long, with what is measured by then."""
    max_gpu_hours: float | None = Field(default=None, gt=0)
    """A start of the run ends when its lanes have held so many GPU-hours, busy or waiting for
    room."""
    placement_timeout: float = Field(default=30, gt=0)
    """Minutes to wait for room for the first job, scale-up included."""
    lease_seconds: float = Field(default=120, ge=1)
    """A driver that has not renewed its lease on the run for so long may be replaced."""
    price_per_gpu_hour: float | None = Field(default=None, ge=0)
    tflops_per_worker: float | None = Field(default=None, gt=0)
    """What a worker computes in practice, for time estimates before anything is measured;
    default: 300 per GPU (bf16 on an H100), 0.05 per thread."""


class TrackingConfig(Section):
    """Where each cell's metrics go besides the storage; needs the extra of the same name."""

    mlflow_uri: str | None = None
    """A tracking server's address."""
    wandb_project: str | None = None
    """The key comes from WANDB_API_KEY, never from a file of the run."""


class RunConfig(Section):
    """A whole run.

    Examples:
        >>> taskeff.load_config("run.yaml").tasks.calibration
        ('name_gender', 'part_of_speech')
    """

    name: str
    storage: str
    model: ModelConfig
    tasks: TasksConfig
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    coslow: CosLowConfig = CosLowConfig()
    scoring: ScoringConfig = ScoringConfig()
    curve: CurveConfig = CurveConfig()
    cluster: ClusterConfig = ClusterConfig()
    tracking: TrackingConfig = TrackingConfig()
    grid: Literal["full", "adaptive"] = "full"
    """adaptive: CoS-Low first, and no cell is measured whose outcome the others determine."""

    @field_validator("name")
    @classmethod
    def _is_a_path_part(cls, value: str) -> str:
        return safe_part(value)

    @model_validator(mode="after")
    def _cap_is_reached(self) -> RunConfig:
        cap = self.curve.cap
        if cap is not None and cap < max(self.training.budgets):
            raise ValueError(
                f"curve.cap {cap} is below the largest training budget "
                f"{max(self.training.budgets)}; raise it or drop the budget"
            )
        return self

    @model_validator(mode="after")
    def _training_fits(self) -> RunConfig:
        if self.training.strategy == "single" and self.cluster.workers_per_job > 1:
            raise ValueError(
                f"training.strategy single uses one worker, cluster.workers_per_job is "
                f"{self.cluster.workers_per_job}; use auto, ddp, fsdp or deepspeed"
            )
        if self.cluster.max_gpu_hours and not self.cluster.gpus_per_worker:
            raise ValueError(
                "cluster.max_gpu_hours: the run uses no GPU (cluster.gpus_per_worker 0); give "
                "cluster.max_hours"
            )
        if self.training.mixed_precision != "no" and self.model.dtype != "float32":
            raise ValueError(
                "training.mixed_precision keeps float32 weights: set model.dtype to float32, "
                f"not {self.model.dtype}"
            )
        if self.training.strategy == "deepspeed" and self.masters == "none":
            raise ValueError(
                "training.masters none: deepspeed keeps float32 masters; set float32, or another "
                "training.strategy"
            )
        return self

    @property
    def masters(self) -> Literal["float32", "none"] | None:
        """What training updates of bfloat16 weights: float32 copies, or the weights themselves
        ("none"); None where no bfloat16 weight trains."""
        half = self.model.dtype == "bfloat16" and self.training.method == "full"
        return self.training.masters if half else None

    @property
    def cap(self) -> int:
        """The budget at the right end of every curve."""
        return self.curve.cap or max(self.training.budgets)
