"""A configuration's file -> its schema: YAML, key.sub=value overrides, errors that name the key."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import OmegaConf
from pydantic import BaseModel, ValidationError

from taskeff.config import RunConfig
from taskeff.errors import ConfigError, DataError, hide, yaml_fault
from taskeff.yaml_file import read_yaml

Schema = TypeVar("Schema", bound=BaseModel)


def load_config(
    path: str | Path, overrides: list[str] | None = None, schema: type[Schema] = RunConfig
) -> Schema:
    """The configuration in the YAML file `path`, with `key.sub=value` overrides applied.

    Args:
        schema: what the file holds: a run, or a ranking (`RankConfig`).

    Raises:
        ConfigError: the file is missing or not YAML, or a key or value is wrong (an unknown key
            is answered with the nearest known one).

    Examples:
        >>> config = taskeff.load_config("run.yaml", ["training.epochs=3"])
        >>> config.training.epochs
        3.0
    """
    return parse_config(read_values(path, overrides), str(path), schema)


def read_values(path: str | Path, overrides: list[str] | None) -> dict[Any, Any]:
    """The keys and values of a YAML file, with overrides applied; raises like `load_config`."""
    path = Path(path)
    try:
        read_yaml(path)  # within bounds; OmegaConf writes aliases out
        loaded = OmegaConf.load(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except DataError as error:
        raise ConfigError(str(error)) from None
    except Exception as error:  # noqa: BLE001 - YAML's and OmegaConf's readers raise what they like
        raise ConfigError(f"{path}: not a readable configuration: {yaml_fault(error)}") from None
    return overridden(loaded, overrides, str(path))


def overridden(values: Any, overrides: list[str] | None, source: str) -> dict[Any, Any]:
    """`values` with overrides applied; `source` names them in errors.

    Raises:
        ConfigError: not keys and values, or an override that is none.
    """
    if not (isinstance(values, Mapping) or OmegaConf.is_dict(values)):
        raise ConfigError(f"{source}: expected keys and values at the top level")
    try:
        # Values are YAML as in the file: `tasks.calibration=[a,b]`, `training.epochs=3`.
        _hide_environment(values, overrides or [])
        merged = OmegaConf.merge(cast("Any", values), OmegaConf.from_dotlist(overrides or []))
        found = OmegaConf.to_container(merged, resolve=True)
    except Exception as error:  # noqa: BLE001 - see above
        raise ConfigError(f"{source}: not a readable configuration: {error}") from None
    return dict(cast("dict[Any, Any]", found))


def _hide_environment(values: Any, overrides: list[str]) -> None:
    """What is taken from the environment is shown nowhere."""
    given = OmegaConf.to_yaml(OmegaConf.create(values), resolve=False)
    for name in re.findall(r"oc\.env:\s*['\"]?([A-Za-z_]\w*)", "\n".join([given, *overrides])):
        hide(os.environ.get(name, ""))


def parse_config(values: Any, source: str, schema: type[Schema] = RunConfig) -> Schema:
    """`values` as a configuration; `source` names them in errors.

    Raises:
        ConfigError: see `load_config`.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        lines = [_explain(problem, schema) for problem in error.errors()]
        raise ConfigError(f"{source}: " + "; ".join(lines)) from None


def _explain(problem: Any, section: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        said = f"{where}: {problem['msg']}" if where else str(problem["msg"])
        if isinstance(problem["input"], bool):
            said += "; YAML reads yes, no, on and off as true and false: a word is put in quotes"
        return said
    for part in problem["loc"][:-1]:
        annotation: Any = section.model_fields[str(part)].annotation
        section = next(
            (c for c in (annotation, *getattr(annotation, "__args__", ())) if _is_section(c)),
            section,
        )
    near = difflib.get_close_matches(str(problem["loc"][-1]), list(section.model_fields), 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(section.model_fields)}"
    return f"{where}: unknown key; {hint}"


def _is_section(candidate: Any) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, BaseModel)
