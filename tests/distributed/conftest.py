"""What tests of whole runs share."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from tests.helpers import run_values


@pytest.fixture(scope="session")
def undisturbed(tiny_model, tmp_path_factory) -> Path:
    """The storage of a finished run."""
    from taskeff.config_file import parse_config
    from taskeff.distributed.executor import RayExecutor
    from taskeff.run.driver import calibrate

    storage = tmp_path_factory.mktemp("undisturbed")
    values = run_values(tiny_model, storage)
    calibrate(parse_config(values, "test"), RayExecutor, Console(quiet=True))
    return storage
