"""Where a family lies: bundled with the package, in a run's folder or store, or a file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskeff.errors import EstimateError

if TYPE_CHECKING:
    from taskeff.storage import Store


def bundled_families() -> dict[str, Path]:
    """The calibrations that the package carries, the paper's coefficients and our own, by name."""
    folder = Path(__file__).parent / "families"
    return {file.stem: file for file in sorted(folder.glob("*.json"))}


def read_family(source: Store | str | os.PathLike[str]) -> tuple[dict[str, Any], str]:
    """The JSON of a bundled family's name, a store or folder, or a `*.json` file; and its name.

    Raises:
        EstimateError: the name is no bundled family and no file.
        StorageError: the file cannot be read.
    """
    bundled = bundled_families()
    if isinstance(source, str) and source in bundled:
        return json.loads(bundled[source].read_text("utf-8")), source
    if isinstance(source, str) and "/" not in source and not os.path.exists(source):
        raise EstimateError(
            f"{source!r} is neither a bundled family ({', '.join(bundled)}) nor a calibration "
            "file; name one of these"
        )
    store, name = located(source)
    return store.read_json(name), name


def located(where: Store | str | os.PathLike[str]) -> tuple[Store, str]:
    """The store and the name in it: `calibration.json` unless a `*.json` file is given."""
    # Storage takes pyarrow along, which a bundled family does not need.
    from taskeff.storage import Store

    if isinstance(where, Store):
        return where, "calibration.json"
    text = os.fspath(where)
    if not text.endswith(".json"):
        return Store(text), "calibration.json"
    folder, _, name = text.rpartition("/")
    return Store(folder or "."), name
