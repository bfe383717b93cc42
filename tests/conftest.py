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


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """The folder of the tests' model (see tests/tiny_model.py), built on first use."""
    from tests.tiny_model import cached

    return cached()
