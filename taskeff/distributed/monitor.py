"""What the driver sees of a running grid: progress, time left, deaths, room that never comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray import tune
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from taskeff.clock import clock
from taskeff.config import RunConfig
from taskeff.errors import ClusterError
from taskeff.finetune.cells import Cell
from taskeff.run.placement import Demand, demand

CHECK_SECONDS = 15.0
RECENT = 12


class Progress:
    """Cells done and to go: one live table on a terminal, a line per cell elsewhere.

    Args:
        seconds: what each pending cell is expected to take; the pace so far corrects it.
    """

    def __init__(
        self, console: Console, seconds: Mapping[Cell, float], *, total: int, done: int, lanes: int
    ):
        self.console = console
        self.total, self.done = total, done
        self._expected = dict(seconds)
        self._lanes = lanes
        self._started = time.monotonic()
        self._seen: set[Cell] = set()
        self._recent: list[dict[str, Any]] = []
        self._jobs: dict[str, str] = {}
        self._row_errors: dict[str, str] = {}
        self._live = Live(console=console, refresh_per_second=2) if console.is_terminal else None

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.update(self._table())
            self._live.stop()

    def say(self, what: str, more: str, colour: str) -> None:
        """One line about something that is not a cell."""
        self.console.print(Text.assemble((what, colour), f" {more}"), soft_wrap=True)

    def job(self, name: str, state: str) -> None:
        """Note what a job is doing."""
        self._jobs[name] = state
        self._refresh()

    def cell(self, result: Mapping[str, Any]) -> None:
        """Note a published cell."""
        cell = Cell(result["task"], result["budget"], result["seed"])
        if cell in self._seen:
            return
        if not self._seen:
            # What comes before the first cell, starting Ray and loading the model, comes once.
            self._started = time.monotonic() - result["seconds"]
        self._seen.add(cell)
        self.done += 1
        if self._live:
            self._recent = [*self._recent, dict(result)][-RECENT:]
            self._refresh()
            return
        self.console.print(
            f"  [{self.done:>3}/{self.total}] {cell.task:<24} n={cell.budget:<5} "
            f"seed {cell.seed}  score {result['score']:.3f}  "
            f"{result['seconds']:5.1f} s   about {self.left()} left",
            highlight=False,
            soft_wrap=True,
        )

    def row_errors(self, errors: Mapping[str, str]) -> None:
        """Note rows that failed for a reason of their own."""
        self._row_errors |= errors

    def take_row_errors(self) -> dict[str, str]:
        """The errors noted since the last call."""
        errors, self._row_errors = self._row_errors, {}
        return errors

    def left(self) -> str:
        """Time left: the expected seconds of what is to go, at the pace so far."""
        gone = sum(self._expected.get(cell, 0.0) for cell in self._seen)
        rest = sum(left for cell, left in self._expected.items() if cell not in self._seen)
        elapsed = time.monotonic() - self._started
        return clock(elapsed * rest / gone if gone else rest / self._lanes)

    def _refresh(self) -> None:
        if self._live:
            self._live.update(self._table())

    def _table(self) -> Table:
        table = Table(
            title=f"{self.done} of {self.total} cells, about {self.left()} left",
            title_justify="left",
        )
        for column in ("task", "n", "seed", "score", "seconds"):
            table.add_column(column, justify="left" if column == "task" else "right")
        for result in self._recent:
            table.add_row(
                str(result["task"]),
                str(result["budget"]),
                str(result["seed"]),
                f"{result['score']:.3f}",
                f"{result['seconds']:.1f}",
            )
        running = [f"{name} {state}" for name, state in self._jobs.items() if state != "done"]
        if running:
            table.caption = "jobs: " + "; ".join(running)
            table.caption_justify = "left"
        return table


class Monitor(tune.Callback):
    """Carries what trials report to `Progress`; ends the grid when no job can be placed.

    Args:
        check: called every `CHECK_SECONDS`; what it raises ends the grid.
    """

    def __init__(
        self, progress: Progress, config: RunConfig, check: Callable[[], None] | None = None
    ):
        self.crashes: dict[str, str] = {}
        self._progress = progress
        self._need = demand(config, None)
        self._timeout = config.cluster.placement_timeout * 60
        self._check = check
        self._running: set[str] = set()
        self._idle_since = time.monotonic()
        self._checked = 0.0

    def __getstate__(self):
        # Tune keeps a copy of its callbacks for Tuner.restore, which is not used here.
        return {**self.__dict__, "_progress": None, "_check": None}

    def on_step_begin(self, iteration: int, trials: list, **info: Any) -> None:
        now = time.monotonic()
        if now - self._checked < CHECK_SECONDS:
            return
        first, self._checked = not self._checked, now
        if self._check:
            self._check()
        if self._running:
            self._idle_since = now
        elif first and not fits(self._need):
            self._progress.say("waiting for the cluster to grow:", self._asked(), "yellow")
        elif now - self._idle_since > self._timeout:
            raise ClusterError(
                f"nothing could be placed within {self._timeout / 60:g} minutes "
                f"(cluster.placement_timeout): {self._asked()}. Check the node types' maxima, "
                "quotas and `ray status`, or ask for less per row"
            )

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._progress.job(trial.config["job"], "waiting for room")

    def on_trial_result(
        self, iteration: int, trials: list, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        name = trial.config["job"]
        if "started" in result:
            self._running.add(name)
            self._progress.job(name, "running")
        if "death" in result:
            self._waiting(name)
            self._progress.say(f"job {name}: a worker died:", result["death"], "yellow")
        if "errors" in result:
            self._progress.row_errors(result["errors"])
        if "crash" in result:
            self.crashes[name] = result["crash"]
        if "budget" in result:
            self._running.add(name)
            self._progress.cell(result)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._waiting(trial.config["job"], "done")

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._waiting(trial.config["job"], "done")

    def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._waiting(trial.config["job"])
        self._progress.say(
            f"job {trial.config['job']}:", "its trial died and starts again", "yellow"
        )

    def _waiting(self, name: str, state: str = "waiting for room") -> None:
        self._running.discard(name)
        self._idle_since = time.monotonic()
        self._progress.job(name, state)

    def _asked(self) -> str:
        return f"a row needs {self._need}; the cluster has {describe_cluster()}"


def fits(need: Demand) -> bool:
    """Whether the nodes that are up now, idle, would hold one row."""
    workers = 0
    for node in ray.nodes():
        if node["Alive"]:
            shares = [node["Resources"].get("CPU", 0.0) / need.cpus]
            if need.gpus:
                shares.append(node["Resources"].get("GPU", 0.0) / need.gpus)
            workers += int(min(shares) + 1e-9)
    return workers >= need.workers


def describe_cluster() -> str:
    """The nodes that are up, alike ones together, without their names."""
    alike: dict[str, int] = {}
    for node in ray.nodes():
        if node["Alive"]:
            resources = node["Resources"]
            offer = f"{resources.get('CPU', 0.0):g} CPU"
            if resources.get("GPU"):
                offer = f"{resources['GPU']:g} GPU, {offer}"
            alike[offer] = alike.get(offer, 0) + 1
    return ", ".join(f"{count} x ({offer})" for offer, count in sorted(alike.items()))
