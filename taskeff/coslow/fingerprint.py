"""What decides a CoS-Low: the fingerprint that is compared, the hash that names its folder."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from pydantic import ValidationError

from taskeff.config import SHARD_ROWS, CosLowConfig, ModelConfig
from taskeff.coslow.linears import target_names
from taskeff.errors import ConfigError
from taskeff.models import attention_choice, load_architecture, skeleton
from taskeff.storage import digest

SCHEMA = 1
FIELDS = {
    "n_examples": "n_examples",
    "quantile": "quantile",
    "strategy": "strategy",
    "confidence_metric": "confidence_metric",
    "max_new_tokens": "max_new_tokens",
    "pool_cap": "pool_cap",
    "on_long": "on_long",
    "lora_rank": "rank",
    "lora_alpha": "alpha",
    "lora_targets": "targets",
    "lora_seed": "seed",
}
"""Fields of a fingerprint -> settings of `CosLowConfig`."""


def fingerprint(
    identity: Mapping[str, Any], model: ModelConfig, settings: CosLowConfig
) -> dict[str, Any]:
    """What CoS-Low is measured with; a new task's must agree with its family's.

    Args:
        identity: see `taskeff.models.family_identity`.

    Raises:
        ModelError: the model's `config.json` cannot be read, or it has no linears so named.
    """
    given = settings.model_dump(mode="json")
    return {
        "model": identity["model"],
        "revision": identity["revision"],
        "template_hash": identity["chat_template"],
        **{field: given[name] for field, name in FIELDS.items()},
        "lora_targets": target_names(skeleton(load_architecture(model)), settings.targets),
        "dtype": model.dtype,
        "attention": attention_choice(model.attn),
        "versions": {name: version(name) for name in ("torch", "transformers")},
    }


def settings_of(
    fingerprint: Mapping[str, Any], given: Mapping[str, Any] | None = None
) -> CosLowConfig:
    """The settings that are given, else those a fingerprint states, else the defaults.

    Raises:
        ConfigError: a setting is unknown or out of range.
    """
    stated = {name: fingerprint[field] for field, name in FIELDS.items() if field in fingerprint}
    try:
        return CosLowConfig.model_validate(stated | dict(given or {}))
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{first['loc'][0]}: {first['msg']}") from None


def signal_hash(
    data: Any,
    identity: Mapping[str, Any],
    dtype: str,
    settings: CosLowConfig,
    *,
    tasks_seed: int,
    shard_rows: int = SHARD_ROWS,
) -> str:
    """A digest of everything that decides a data set's CoS-Low but the hardware.

    Args:
        data: what stands for its rows: a digest of them, or where they are read from.
        tasks_seed: of the source, and of the split into training and test rows.
        shard_rows: rows that share batches; left out where it is what it always was.
    """
    decided = {
        "schema": SCHEMA,
        "data": data,
        "model": dict(identity),
        "dtype": dtype,
        "coslow": settings.deciding(),
        "tasks_seed": tasks_seed,
    }
    return digest(decided | ({} if shard_rows == SHARD_ROWS else {"shard_rows": shard_rows}))
