"""YAML as data, within bounds: how much is written, how deep, and how often aliases repeat it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from taskeff.errors import DataError, cell
from taskeff.schema import DEEPEST

MOST_BYTES = 64 << 20
TOO_DEEP = "lists or objects are nested too deeply"
MOST_REPEATED = 10_000
"""Values that aliases may repeat, all together; a dozen nested ones make billions."""
_Safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Loader(_Safe):
    """A safe loader that ends at `DEEPEST`: libyaml's own recursion ends the process."""

    _depth = 0

    def descend_resolver(self, current_node: Any, current_index: Any) -> None:
        """Called before each value that stands in another."""
        self._depth += 1
        if self._depth > DEEPEST:
            raise DataError(TOO_DEEP)
        super().descend_resolver(current_node, current_index)

    def ascend_resolver(self) -> None:
        """Called after it."""
        self._depth -= 1
        super().ascend_resolver()

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """A key that is there twice is an error, not its last value."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                continue
            if key.value in seen:
                problem = f"{cell(key.value)} is there twice; drop one"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path, loader: type[Loader] = Loader) -> Any:
    """The value in the local file at `path`.

    Raises:
        OSError: the file cannot be read.
        DataError: it is beyond the bounds, naming it.
        yaml.YAMLError, UnicodeError: it is not YAML.
    """
    with open(path, "rb") as file:
        data = file.read(min(MOST_BYTES, os.fstat(file.fileno()).st_size) + 1)
    try:
        return parsed_yaml(data, loader)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def parsed_yaml(data: bytes, loader: type[Loader] = Loader) -> Any:
    """The value that `data` (UTF-8, with or without its mark) holds.

    Args:
        loader: with constructors of its own.

    Raises:
        DataError: it is beyond the bounds.
        yaml.YAMLError, UnicodeError: it is not YAML.
    """
    if len(data) > MOST_BYTES:
        raise DataError(f"has more than {MOST_BYTES >> 20} MiB of YAML; give rows as CSV or JSON")
    reader: Any = loader(data.decode("utf-8-sig"))
    try:
        # Looked at before it is built: `<<` writes aliases out while it is.
        node = reader.get_single_node()
        if node is None:
            return None
        sizes: dict[int, int] = {}
        if _expanded(node, sizes, DEEPEST) - len(sizes) > MOST_REPEATED:
            raise DataError(
                f"aliases (*name) repeat more than {MOST_REPEATED:,} values; write them out"
            )
        return reader.construct_document(node)
    except RecursionError:
        raise DataError(TOO_DEEP) from None
    finally:
        reader.dispose()


def _expanded(node: Any, sizes: dict[int, int], depth: int) -> int:
    """Values in `node` with aliases written out; `sizes` collects those that are written."""
    if (known := sizes.get(id(node))) is not None:
        return known
    if not depth:
        # An alias of what it stands in is endless.
        raise DataError(TOO_DEEP)
    found = 1
    if isinstance(node, yaml.SequenceNode):
        found += sum(_expanded(item, sizes, depth - 1) for item in node.value)
    elif isinstance(node, yaml.MappingNode):
        found += sum(_expanded(one, sizes, depth - 1) for pair in node.value for one in pair)
    sizes[id(node)] = found
    return found
