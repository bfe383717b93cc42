"""Runs a verb of `taskeff` again and again, ending the k-th call at its k-th publishing, until one
call ends by itself: `python -m tests.interrupted kill|full VERB ... [++ VERB ...]`.

`kill` ends the process as SIGKILL does, in the middle of a file; `full` is a disk that is full from
there on. Prints the exit code of every call, a line per verb.
"""

from __future__ import annotations

import errno
import os
import signal
import sys

from taskeff.cli import main


def run(arguments: list[str], kind: str, at: int) -> None:
    published = 0
    real = os.fsync

    def fsync(file: int) -> None:
        nonlocal published
        published += 1
        if published < at:
            real(file)
        elif kind == "kill":
            # Half of the file is there under its interim name.
            os.ftruncate(file, os.fstat(file).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            raise OSError(errno.ENOSPC, "No space left on device")

    os.fsync = fsync
    sys.argv = ["taskeff", *arguments]
    try:
        main()
    except SystemExit as stop:
        os._exit(int(stop.code or 0))
    os._exit(0)


if __name__ == "__main__":
    import torch  # noqa: F401 - loaded once for all calls
    import transformers  # noqa: F401

    kind, *words = sys.argv[1:]
    ends = [place for place, word in enumerate(words) if word == "++"]
    for start, end in zip([-1, *ends], [*ends, len(words)], strict=True):
        for at in range(1, 40):
            child = os.fork()
            if not child:
                os.dup2(2, 1)
                run(words[start + 1 : end], kind, at)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            print(code, end=" ", flush=True)
            if code not in (-signal.SIGKILL, 2):
                break
        print(flush=True)
