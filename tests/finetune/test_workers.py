"""A worker's end keeps what it printed and does without the interpreter's own end."""

import subprocess
import sys

WORKER = """
import atexit
from accelerate import PartialState
from taskeff.finetune.workers import end_worker, ensure_group
ensure_group(PartialState(cpu=True))
atexit.register(print, "the interpreter's end")
print("work done")
end_worker()
"""


def test_a_worker_ends_at_once_with_what_it_printed():
    ended = subprocess.run([sys.executable, "-c", WORKER], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "work done\n"), ended.stderr
