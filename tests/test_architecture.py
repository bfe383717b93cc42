"""The page for whoever carries on names files that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`((?:\w+/)+(?:\w+\.py)?)`", PAGE)))


@pytest.mark.parametrize("path", NAMED)
def test_it_names_what_is_there(path):
    assert (ROOT / "taskeff" / path).exists() or (ROOT / path).exists()
