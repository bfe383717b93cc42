"""The version of this package."""

from __future__ import annotations

import importlib.metadata


def version() -> str:
    """As installed, ``1.2.3``."""
    try:
        return importlib.metadata.version("taskeff")
    except importlib.metadata.PackageNotFoundError:
        return "unknown: not installed"
