"""What every room's tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Set before anything imports torch or the hub client: no test may reach for the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True)
def _file_systems_of_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests keep files in memory too (tests/filesystems.py); nobody else's URI leads there."""
    from taskeff import storage

    monkeypatch.setattr(storage, "PROTOCOLS", storage.PROTOCOLS | {"memory", "bucket"})


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """The folder of the tests' model (see tests/tiny_model.py), built on first use."""
    from tests.tiny_model import cached

    return cached()


@pytest.fixture(scope="session")
def local_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of a finished run (`tests.helpers.run_values`), measured without Ray by two
    processes' parts and a last call. Copy it before changing anything."""
    from rich.console import Console

    from taskeff.config_file import parse_config
    from taskeff.run.driver import calibrate
    from taskeff.run.inline import InlineExecutor
    from tests.helpers import run_values

    storage = tmp_path_factory.mktemp("local")
    config = parse_config(run_values(tiny_model, storage), "test")
    for part in ((0, 2), (1, 2), None):
        calibrate(config, InlineExecutor, Console(quiet=True), part=part)
    return storage
