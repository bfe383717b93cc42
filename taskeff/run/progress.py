"""What the person at the terminal sees of a running calibration."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from taskeff.errors import redact
from taskeff.finetune.cells import Cell

RECENT = 12


class Progress:
    """Things done and to go: one live table on a terminal, a line for each elsewhere.

    Args:
        seconds: what each cell, or each task's CoS-Low, is expected to take; the pace so far
            corrects it.
        total, done: of the run, what was measured before included.
        lanes: how many are measured at once.
        check: to be called now and then while measuring; what it raises ends the run.

    Attributes:
        failures: what failed -> the reason.
    """

    def __init__(
        self,
        console: Console,
        seconds: Mapping[Any, float],
        *,
        total: int,
        done: int = 0,
        lanes: int = 1,
        check: Callable[[], None] = lambda: None,
    ):
        self.console, self.check = console, check
        self.total, self.done = total, done
        self.failures: dict[str, str] = {}
        self._expected = dict(seconds)
        self._lanes = lanes
        self._started = time.monotonic()
        self._seen: set[Hashable] = set()
        self._recent: list[tuple[str, ...]] = []
        self._jobs: dict[str, str] = {}
        self._live = Live(console=console, refresh_per_second=2) if console.is_terminal else None

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.update(self._table())
            self._live.stop()

    def cell(self, cell: Cell, score: float, seconds: float) -> None:
        """Note a published cell; one that is noted already changes nothing."""
        budget, seed = f"n={cell.budget:<5}", f"seed {cell.seed}"
        self._note(cell, seconds, f"{cell.task:<24}", budget, seed, f" score {score:.3f} ")

    def coslow(self, result: Mapping[str, Any], seconds: float) -> None:
        """Note a task's published CoS-Low."""
        values = (
            f"CoS-Low {result['cos_low']:+.3f} ",
            f"random {result['random_cosine']:+.3f} ",
            f"confidence {result['mean_confidence']:.3f} ",
        )
        self._note(result["task"], seconds, f"{result['task']:<24}", *values)

    def failed(self, name: str, why: str) -> None:
        """Say and keep what failed and cannot be measured in this run."""
        if name not in self.failures:
            self.failures[name] = why
            self.say(f"{name} failed:", why, "red")

    def say(self, what: str, more: str, colour: str = "yellow") -> None:
        """One line about something that is not a result."""
        say(self.console, what, more, colour)

    def job(self, name: str, state: str) -> None:
        """Note what a job is doing."""
        self._jobs[name] = state
        self._refresh()

    def left(self) -> str:
        """Time left: the expected seconds of what is to go, at the pace so far."""
        gone = sum(self._expected.get(key, 0.0) for key in self._seen)
        rest = sum(left for key, left in self._expected.items() if key not in self._seen)
        elapsed = time.monotonic() - self._started
        return clock(elapsed * rest / gone if gone else rest / self._lanes)

    def _note(self, key: Hashable, seconds: float, *columns: str) -> None:
        if key in self._seen:
            return
        if not self._seen:
            # What comes before the first result, starting Ray and loading the model, comes once.
            self._started = time.monotonic() - seconds
        self._seen.add(key)
        self.done += 1
        columns = (*columns, f"{seconds:5.1f} s")
        if self._live:
            self._recent = [*self._recent, columns][-RECENT:]
            self._refresh()
            return
        count = f"  [{self.done:>3}/{self.total}]"
        line = " ".join((count, *columns, f"  about {self.left()} left"))
        self.console.print(line, highlight=False, soft_wrap=True, markup=False)

    def _refresh(self) -> None:
        if self._live:
            self._live.update(self._table())

    def _table(self) -> Table:
        table = Table(
            title=f"{self.done} of {self.total}, about {self.left()} left",
            title_justify="left",
            show_header=False,
        )
        for columns in self._recent:
            table.add_row(*(column.strip() for column in columns))
        running = [f"{name} {state}" for name, state in self._jobs.items() if state != "done"]
        if running:
            table.caption = "jobs: " + "; ".join(running)
            table.caption_justify = "left"
        return table


def say(console: Console, what: str, more: str, colour: str = "yellow") -> None:
    """One line about something that is not a result."""
    console.print(Text.assemble((what, colour), f" {redact(more)}"), soft_wrap=True)


def clock(seconds: float) -> str:
    """`MM:SS`, with hours before them where there are any."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}:" if hours else "") + f"{minutes:02}:{rest:02}"
