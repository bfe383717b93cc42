"""One driver per run: a lease object in the run's storage that expires unless it is renewed.

Leases are numbered files, each created by a conditional put, so of two drivers that see the same
expired lease only one can create its successor. The holder renews its own file; a holder that
slept past its expiry finds a higher number there and stops.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from taskeff.errors import ClusterError, StorageError
from taskeff.storage import Store, canonical_json

FOLDER = "lease"


@dataclass(frozen=True)
class Holder:
    """Who holds a lease; `machine` is a digest that tells machines apart and names none."""

    owner: str
    machine: str
    pid: int
    expires: float
    """Seconds since the epoch."""


class Lease:
    """A run's lease, held from `acquire` (or entering `with`) until `release`.

    Args:
        seconds: a lease that was not renewed for so long may be taken over. Drivers' clocks must
            agree to a fraction of it.
    """

    def __init__(self, store: Store, seconds: float, *, clock: Callable[[], float] = time.time):
        self._store = store.child(FOLDER)
        self._seconds = seconds
        self._clock = clock
        self._number = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.owner = uuid.uuid4().hex[:8]

    def __enter__(self) -> Lease:
        self.acquire()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()
        self.release()

    def acquire(self) -> None:
        """Take the lease, over an expired one too, or one whose driver died on this machine.

        Raises:
            ClusterError: another driver holds it; names its owner id and the expiry.
        """
        number, holder = self._latest()
        if holder and not self._abandoned(holder):
            self._refuse(holder)
        if not self._store.create(self._content(), _name(number + 1)):
            _, holder = self._latest()
            self._refuse(holder)
        self._number = number + 1
        for name in self._store.names():
            if name < _name(self._number):
                self._store.remove(name)

    def renew(self) -> bool:
        """Move the expiry; False once another driver has taken the lease over."""
        if not self.held():
            return False
        self._store.write_bytes(self._content(), _name(self._number))
        return True

    def held(self) -> bool:
        """Whether no other driver has taken the lease over."""
        return self._number > 0 and self._latest()[0] == self._number

    def check(self) -> None:
        """Raise ClusterError if another driver has taken the lease over."""
        if not self.held():
            raise ClusterError(
                f"driver {self.owner} lost this run's lease to another driver; "
                "it stops here, what was measured is kept"
            )

    def release(self) -> None:
        """Give the lease back."""
        if self._number:
            self._store.remove(_name(self._number))
            self._number = 0

    def _keep(self) -> None:
        while not self._stop.wait(self._seconds / 4):
            # A failed renewal is tried again well before the expiry.
            with contextlib.suppress(StorageError, OSError):
                if not self.renew():
                    return

    def _content(self) -> bytes:
        holder = Holder(self.owner, _machine(), os.getpid(), self._clock() + self._seconds)
        return canonical_json(vars(holder)).encode()

    def _latest(self) -> tuple[int, Holder | None]:
        names = [name for name in self._store.names() if _is_lease(name)]
        if not names:
            return 0, None
        name = max(names)
        try:
            return int(name[:8]), Holder(**self._store.read_json(name))
        except (StorageError, TypeError):
            # Released or replaced while it was read, or cut short: nobody renews that one.
            return int(name[:8]), None

    def _abandoned(self, holder: Holder) -> bool:
        if holder.expires <= self._clock():
            return True
        return holder.machine == _machine() and not _is_alive(holder.pid)

    def _refuse(self, holder: Holder | None) -> None:
        if holder is None:
            raise ClusterError("another driver has just taken this run's lease; try again later")
        until = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(holder.expires))
        raise ClusterError(
            f"driver {holder.owner} is working on this run; its lease runs until {until} and is "
            "renewed while it lives: wait for it to end, stop it, or give this run another `name`"
        )


def _name(number: int) -> str:
    return f"{number:08d}.json"


def _is_lease(name: Any) -> bool:
    return len(name) == 13 and name.endswith(".json") and name[:8].isdigit()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _machine() -> str:
    """A digest of what process ids are counted in: this boot, this container."""
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/etc/machine-id"):
        with contextlib.suppress(OSError):
            parts.append(Path(path).read_text(encoding="utf-8").strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]
