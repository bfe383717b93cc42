"""The configuration of a ranking of candidate data sets; reads like `taskeff.config`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from taskeff.config import CosLowConfig, ModelConfig, parse_config, read_values


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScoringConfig(_Section):
    """How candidate data sets go over the cluster; none of it changes a result but `shard_rows`,
    whose rows share batches."""

    engine: Literal["builtin", "vllm"] = "builtin"
    """`vllm` scores confidence through ray.data.llm (extra `vllm`, GPUs); gradients are ours."""
    shard_rows: int = Field(default=512, ge=1)
    """Rows scored, published and resumed together."""
    actors: tuple[int, int] = (1, 2)
    """Fewest and most actors that hold the model; the pool grows as work queues up."""
    cpus_per_actor: float = Field(default=0.5, gt=0)
    gpus_per_actor: float = Field(default=0, ge=0)
    """A fraction puts several actors on one GPU."""
    threads_per_actor: int = Field(default=1, ge=1)
    readers: int = Field(default=4, ge=1)
    """Most tasks that read and tokenise at once, on CPUs anywhere in the cluster."""
    cpus_per_reader: float = Field(default=0.25, gt=0)
    queue_mb: int = Field(default=256, ge=16)
    """Object-store memory that rows on their way may take; readers wait beyond it."""

    @field_validator("actors")
    @classmethod
    def _rising(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= value[0] <= value[1]:
            raise ValueError(f"give the fewest and the most actors, [1, 2] say, got {list(value)}")
        return value


class ScoreConfig(_Section):
    """A ranking of candidate data sets."""

    manifest: str
    """YAML, JSON lines, CSV or Parquet; see docs/rank.md."""
    model: ModelConfig
    family: str
    """A calibration: its folder, calibration.json, or a published family's name."""
    out: str
    """Folder or URI of the ranking and of what it was made from."""
    targets: tuple[float, ...] = (0.8, 0.9)
    label_price: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Of one label, where the manifest gives none."""
    strict: bool = False
    """Stop at a bad entry of the manifest, rather than report and skip it."""
    seed: int = 0
    """Seeds bundled data sets and the draw of `coslow.pool_cap`."""
    coslow: CosLowConfig | None = None
    """Default: as the family was calibrated."""
    scoring: ScoringConfig = ScoringConfig()

    @field_validator("targets")
    @classmethod
    def _are_shares(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or list(value) != sorted(set(value)) or not 0 < value[0] <= value[-1] <= 1:
            raise ValueError(f"give rising shares in (0, 1], [0.8, 0.9] say, got {list(value)}")
        return value


def load_score_config(path: str | Path, overrides: list[str] | None = None) -> ScoreConfig:
    """The configuration in the YAML file `path`, with `key.sub=value` overrides applied.

    Raises:
        ConfigError: see `taskeff.config.load_config`.
    """
    return parse_config(read_values(path, overrides), str(path), ScoreConfig)
