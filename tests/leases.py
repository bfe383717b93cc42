"""A clock that tests move, and drivers that ask for a run at the same time."""

import threading
from collections.abc import Sequence
from contextlib import suppress

from taskeff.errors import ClusterError
from taskeff.lease import Lease


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


def race(leases: Sequence[Lease]) -> list[Lease]:
    """Those that got the run, all of them asking at once."""
    start, won = threading.Barrier(len(leases)), []

    def rush(lease: Lease) -> None:
        start.wait()
        with suppress(ClusterError):
            lease.acquire()
            won.append(lease)

    threads = [threading.Thread(target=rush, args=(lease,)) for lease in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return won
