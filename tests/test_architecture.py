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


def test_every_boundary_names_the_tests_that_hold_it():
    root = Path(__file__).parents[1]
    lines = (root / "docs/security.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ")][1:]
    assert len(rows) > 10
    for row in rows:
        assert (root / row.rstrip(" |").rsplit("`", 2)[1]).is_file(), row
