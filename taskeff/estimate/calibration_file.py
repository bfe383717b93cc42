"""What `calibration.json` must hold before anything is made of it; the file comes from anywhere."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from taskeff.schema import Artefact, Cosine, Count, Number, Object, Positive, Share, Text, Whole

Area = Annotated[Number, Field(gt=0, lt=1)]
Vector = Annotated[list[Number], Field(max_length=1000)]
Matrix = Annotated[list[Vector], Field(max_length=1000)]


class _BetaShape(Artefact):
    concentration: Positive
    roughness: Annotated[Number, Field(ge=0)]
    budgets: list[Annotated[Count, Field(ge=1)]]
    scatter: tuple[Annotated[Number, Field(ge=0)], ...] = ()
    seed_spread: Annotated[Number, Field(ge=0)] = 0.0


class _BetaCurve(Artefact):
    kind: Literal["beta"]
    shape: _BetaShape


class _PowerCurve(Artefact):
    kind: Literal["power"]
    shape: Object


class _Line(Artefact):
    kind: Literal["ols", "logit", "fractional"]
    slope: Number
    intercept: Number


class _Stated(Artefact):
    mae: Share | None = None


class _Rise(Artefact):
    area: Area
    concentration: Positive
    gain: Share
    headroom: Number | None


class _Task(Artefact):
    name: Text
    auc: Share
    cos_low: Cosine | None = None
    status: Literal["measured", "imputed", "carried", "short"] = "measured"
    controls: dict[str, Number] = Field(default_factory=dict)
    rise: _Rise | None


class _Prior(Artefact):
    coefficients: Matrix
    scale: Matrix
    gram_inverse: Matrix
    freedom: Annotated[Count, Field(ge=1)]
    ceiling_logit: Number | None
    signals: list[Text]


class _Evidence(Artefact):
    predictor: Text
    pilots: list[Count]
    target: Share
    tasks: Count
    scored: Count
    auc_mae: Number
    log2_error_mean: Number | None
    auc_coverage: dict[str, dict[str, Number]] | None
    label_coverage: dict[str, dict[str, Number]] | None


class Scored(Artefact):
    """What an estimate takes of a `coslow.json`."""

    cos_low: Cosine
    fingerprint: Object


class CalibrationFile(Artefact):
    """The fields of `Calibration.to_dict` that it is made of again."""

    family: Text
    fingerprint: Object
    cap: Annotated[Count, Field(ge=2)]
    curve: Annotated[_BetaCurve | _PowerCurve, Field(discriminator="kind")]
    fit: _Line | None
    loo: _Stated
    seed: Whole
    source: Text | None
    caveat: Text | None = None
    tasks: list[_Task]
    priors: tuple[_Prior, ...] = ()
    coverage: dict[str, dict[str, dict[str, Share]]] | None = None
    evidence: tuple[_Evidence, ...] = ()
