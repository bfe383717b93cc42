"""Where the measured curves of the paper are, on machines that have them."""

from pathlib import Path

import pytest

REFERENCE = Path(__file__).resolve().parents[2].parent / "shared" / "reference"
needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="the paper's measured curves are not on this machine"
)
