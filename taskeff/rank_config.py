"""The schema of a ranking, as a frozen object; `config_file` reads it."""

from __future__ import annotations

from pydantic import Field, field_validator

from taskeff.config import CosLowConfig, ModelConfig, ScoringConfig, Section


class RankConfig(Section):
    """A ranking of candidate data sets.

    Examples:
        >>> model = taskeff.ModelConfig(path="model", name="mine")
        >>> taskeff.RankConfig(manifest="m.yaml", model=model, family="generic", out="out").targets
        (0.8, 0.9)
    """

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
    allow_local: tuple[str, ...] = ()
    """Folders of this machine that the manifest's entries may read, beside its own."""
    strict: bool = False
    """Stop at a bad entry of the manifest, rather than report and skip it."""
    seed: int = 0
    """Seeds bundled data sets and the draw of `coslow.pool_cap`."""
    coslow: CosLowConfig | None = None
    """What is not given is as the family was calibrated."""
    scoring: ScoringConfig = ScoringConfig()

    @field_validator("targets")
    @classmethod
    def _are_shares(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or list(value) != sorted(set(value)) or not 0 < value[0] <= value[-1] <= 1:
            raise ValueError(f"give rising shares in (0, 1], [0.8, 0.9] say, got {list(value)}")
        return value
