"""JSON and YAML that nest without end: an error like any other, not the end of the process."""

from __future__ import annotations

import json
from typing import Any

import yaml

DEEPEST = 200  # lists and mappings within each other
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_OPENS = (yaml.SequenceStartEvent, yaml.MappingStartEvent)
_CLOSES = (yaml.SequenceEndEvent, yaml.MappingEndEvent)


def json_of(content: str | bytes) -> Any:
    """What a JSON text holds.

    Raises:
        ValueError: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("lists or objects are nested too deeply") from None


def check_yaml(content: str | bytes) -> None:
    """Refuse what YAML's readers, which call themselves, would end the process on.

    Raises:
        ValueError: it is nested too deeply.
        yaml.YAMLError: it is no YAML.
    """
    depth = 0
    for event in yaml.parse(content, _LOADER):
        depth += isinstance(event, _OPENS) - isinstance(event, _CLOSES)
        if depth > DEEPEST:
            raise ValueError("lists or mappings are nested too deeply")
