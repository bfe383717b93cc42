"""Ray Tune's events as the driver's `Progress`: cells, deaths, room that never comes."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray import tune

from taskeff.config import RunConfig
from taskeff.errors import ClusterError
from taskeff.finetune.cells import Cell
from taskeff.run.placement import Demand, demand
from taskeff.run.progress import Progress

CHECK_SECONDS = 15.0


class Monitor(tune.Callback):
    """Carries what trials report to `Progress`, whose check is called every `CHECK_SECONDS`; ends
    the grid when no job can be placed."""

    def __init__(self, progress: Progress, config: RunConfig):
        self.crashes: dict[str, str] = {}
        self._progress = progress
        self._need = demand(config, None)
        self._timeout = config.cluster.placement_timeout * 60
        self._running: set[str] = set()
        self._idle_since = time.monotonic()
        self._checked = 0.0

    def __getstate__(self):
        # Tune keeps a copy of its callbacks for Tuner.restore, which is not used here.
        return {**self.__dict__, "_progress": None}

    def on_step_begin(self, iteration: int, trials: list, **info: Any) -> None:
        now = time.monotonic()
        if now - self._checked < CHECK_SECONDS:
            return
        first, self._checked = not self._checked, now
        self._progress.check()
        if self._running:
            self._idle_since = now
        elif first and not fits(self._need):
            self._progress.say("waiting for the cluster to grow:", self._asked())
        elif now - self._idle_since > self._timeout:
            raise ClusterError(
                f"nothing could be placed within {self._timeout / 60:g} minutes "
                f"(cluster.placement_timeout): {self._asked()}. Check the node types' maxima, "
                "quotas and `ray status`, or ask for less per job"
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
            self._progress.say(f"job {name}: a worker died:", result["death"])
        for what, why in result.get("errors", {}).items():
            self._progress.failed(what, why)
        if "crash" in result:
            self.crashes[name] = result["crash"]
        if "budget" in result:
            self._running.add(name)
            cell = Cell(result["task"], result["budget"], result["seed"])
            self._progress.cell(cell, result["score"], result["seconds"])

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._waiting(trial.config["job"], "done")

    on_trial_error = on_trial_complete

    def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._waiting(trial.config["job"])
        self._progress.say(f"job {trial.config['job']}:", "its trial died and starts again")

    def _waiting(self, name: str, state: str = "waiting for room") -> None:
        self._running.discard(name)
        self._idle_since = time.monotonic()
        self._progress.job(name, state)

    def _asked(self) -> str:
        return f"a job needs {self._need}; the cluster has {describe_cluster()}"


def fits(need: Demand) -> bool:
    """Whether the nodes that are up now, idle, would hold one job."""
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
