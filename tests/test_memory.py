"""What the heap keeps and gives back, by this process's resident memory."""

import ctypes
import sys

import pytest

from taskeff.memory import kept_heap
from tests.helpers import run_python

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None) if sys.platform == "linux" else None, "mallopt"),
    reason="this C library has no mallopt",
)


# In a process of its own: the heap of a process that has run other tests has holes to fill first.
FREED = """
import psutil
from taskeff.memory import kept_heap, return_memory

def resident():
    return psutil.Process().memory_info().rss / 1e6

return_memory()
before = resident()
with kept_heap():
    blocks = [bytearray(b"x") * (1 << 20) for _ in range(200)]
    held = resident() - before
    blocks.clear()
    kept = resident() - before
return_memory()
print(held, kept, resident() - before)
"""


def test_freed_blocks_stay_inside_and_go_back_when_asked():
    done = run_python(FREED)
    held, kept, after = map(float, done.stdout.split())
    assert held > 180, "MB"
    assert kept > 150
    assert after < 50


def test_an_error_inside_is_passed_on():
    with pytest.raises(ValueError, match="inside"), kept_heap():
        raise ValueError("inside")
