"""One driver per run: a lease object in the run's storage that expires unless it is renewed.

Leases are numbered files, each created by a conditional put, so of two drivers that see the same
expired lease only one can create its successor. The holder renews its own file; a holder that
slept past its expiry finds a higher number there and stops.

Parts i/n of one run have numbers of their own, so parts of the same n work side by side. A part
and the whole run, or parts of another n, exclude each other: each creates its file first and looks
at the others' afterwards, so that of two at once at least one sees the other and steps back; over
an expired one it puts a successor there too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field

from taskeff.errors import ClusterError, StorageError, TaskeffError
from taskeff.schema import Artefact, Number, Text, Whole, checked
from taskeff.storage import Store, canonical_json

FOLDER = "lease"
_YEAR_9999 = 253402300799
Part = tuple[int, int]
"""(i, n): the i-th of n shares of a run, counted from 0."""
_NAME = re.compile(r"(?:(\d+)-of-(\d+)\.)?(\d{8})\.json")


@dataclass(frozen=True)
class Holder:
    """Who holds a lease; `machine` is a digest that tells machines apart and names none."""

    owner: str
    machine: str
    pid: int
    expires: float
    """Seconds since the epoch."""


class _Holding(Artefact):
    model_config = ConfigDict(extra="forbid")

    owner: Text
    machine: Text
    pid: Annotated[Whole, Field(ge=1, le=2**31 - 1)]
    expires: Annotated[Number, Field(ge=0, le=_YEAR_9999)]


class Lease:
    """A run's lease, held from `acquire` (or entering `with`) until `release`.

    Args:
        seconds: a lease that was not renewed for so long may be taken over. Drivers' clocks must
            agree to a fraction of it.
        part: the share of the run that is measured; None is all of it.
    """

    def __init__(
        self,
        store: Store,
        seconds: float,
        *,
        part: Part | None = None,
        clock: Callable[[], float] = time.time,
    ):
        self._store = store.child(FOLDER)
        self._seconds = seconds
        self._part = part
        self._clock = clock
        self._held: dict[Part | None, int] = {}
        self._expires = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.owner = uuid.uuid4().hex[:8]

    def __enter__(self) -> Lease:
        self.acquire()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()
        # A lease that cannot be removed expires; it must not hide how the run ended.
        with contextlib.suppress(StorageError):
            self.release()

    def acquire(self) -> None:
        """Take the lease, over an expired one too, or one whose driver died on this machine.

        Raises:
            ClusterError: another driver holds it; names its owner id and the expiry.
        """
        before = self._numbers()
        self._refuse_living(before, {self._part, *before})
        self._create(self._part, before.get(self._part, 0))
        try:
            others = self._numbers()
            self._refuse_living(others, others.keys() - {self._part})
            for part, number in others.items():
                if self._excludes(part):
                    self._create(part, number)
        except (ClusterError, StorageError):
            self.release()
            raise
        for name in self._store.names():
            part, number = _parsed(name) or (None, 0)
            if 0 < number < self._held.get(part, 0):
                self._store.remove(name)

    def renew(self) -> bool:
        """Move the expiry; False once another driver has taken the lease over."""
        if not self.held():
            return False
        expires = self._clock() + self._seconds
        self._store.write_bytes(self._content(expires), _name(self._part, self._held[self._part]))
        self._expires = expires
        return True

    def held(self) -> bool:
        """Whether no other driver has taken the lease over."""
        mine = self._held.get(self._part)
        return mine is not None and self._numbers().get(self._part) == mine

    def check(self) -> None:
        """Raise ClusterError if another driver has taken the lease over.

        A storage that does not answer is no reason to stop as long as nobody may have done that.
        """
        try:
            held = self.held()
        except StorageError:
            if self._clock() >= self._expires:
                raise
            return
        if not held:
            raise ClusterError(
                f"driver {self.owner} lost this run's lease to another driver; "
                "it stops here, what was measured is kept"
            )

    def release(self) -> None:
        """Give the lease back."""
        held, self._held = self._held, {}
        for part, number in held.items():
            self._store.remove(_name(part, number))

    def _create(self, part: Part | None, after: int) -> None:
        expires = self._clock() + self._seconds
        if not self._store.create(self._content(expires), _name(part, after + 1)):
            self._refuse(part, self._holder(part, after + 1))
        self._held[part], self._expires = after + 1, expires

    def _keep(self) -> None:
        while not self._stop.wait(self._seconds / 4):
            # A failed renewal is tried again well before the expiry.
            with contextlib.suppress(StorageError):
                if not self.renew():
                    return

    def _content(self, expires: float) -> bytes:
        holder = Holder(self.owner, _machine(), os.getpid(), expires)
        return canonical_json(vars(holder)).encode()

    def _numbers(self) -> dict[Part | None, int]:
        """The highest number of every part that has a lease."""
        highest: dict[Part | None, int] = {}
        for part, number in filter(None, map(_parsed, self._store.names())):
            highest[part] = max(number, highest.get(part, 0))
        return highest

    def _holder(self, part: Part | None, number: int) -> Holder | None:
        try:
            found = self._store.read_json(_name(part, number))
            return Holder(**checked(found, _Holding, FOLDER))
        except TaskeffError:
            # Released or replaced while it was read, or cut short: nobody renews that one.
            return None

    def _excludes(self, part: Part | None) -> bool:
        """Whether `part`, another than this one, cannot be worked on beside it."""
        return part != self._part and not (part and self._part and part[1] == self._part[1])

    def _refuse_living(self, numbers: dict[Part | None, int], parts: Iterable[Part | None]) -> None:
        for part in parts:
            if part in numbers and (part == self._part or self._excludes(part)):
                holder = self._holder(part, numbers[part])
                if holder and not self._abandoned(holder):
                    self._refuse(part, holder)

    def _abandoned(self, holder: Holder) -> bool:
        if holder.expires <= self._clock():
            return True
        return holder.machine == _machine() and not _is_alive(holder.pid)

    def _refuse(self, part: Part | None, holder: Holder | None) -> None:
        if holder is None:
            raise ClusterError("another driver has just taken this run's lease; try again later")
        until = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(holder.expires))
        what = f"part {part[0]}/{part[1]} of this run" if part else "this run"
        raise ClusterError(
            f"driver {holder.owner} is working on {what}; its lease runs until {until} and is "
            "renewed while it lives: wait for it to end, stop it, or give this run another `name`"
        )


def _name(part: Part | None, number: int) -> str:
    return (f"{part[0]}-of-{part[1]}." if part else "") + f"{number:08d}.json"


def _parsed(name: str) -> tuple[Part | None, int] | None:
    """(part, number) of a lease's file; None of any other."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    part = None if found[1] is None else (int(found[1]), int(found[2]))
    return part, int(found[3])


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
