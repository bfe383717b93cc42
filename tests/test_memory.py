"""What the heap keeps and gives back, by this process's resident memory."""

import ctypes
import sys

import psutil
import pytest

from taskeff.memory import kept_heap, return_memory

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None) if sys.platform == "linux" else None, "mallopt"),
    reason="this C library has no mallopt",
)


def resident() -> float:
    """Megabytes."""
    return psutil.Process().memory_info().rss / 1e6


def test_freed_blocks_stay_inside_and_go_back_when_asked():
    return_memory()
    before = resident()
    with kept_heap():
        blocks = [bytearray(b"x") * (1 << 20) for _ in range(200)]
        assert resident() > before + 180
        blocks.clear()
        assert resident() > before + 150
    return_memory()
    assert resident() < before + 50


def test_an_error_inside_is_passed_on():
    with pytest.raises(ValueError, match="inside"), kept_heap():
        raise ValueError("inside")
