"""One connection to Ray per run: a local cluster on a laptop, or the cluster the job runs in."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import ray

from taskeff.config import ClusterConfig
from taskeff.errors import ClusterError, hidden, hide
from taskeff.memory import return_memory

if TYPE_CHECKING:
    from ray.data import DataContext

_AUTH_MODE = "RAY_AUTH_MODE"
# One thread per worker; spinning OpenMP threads are ten times slower when all cores are busy.
_WORKER_ENV = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
}
# One machine is not preempted piecemeal; the watcher is a process of 0.1 GB for every job.
_LOCAL_ENV = {**_WORKER_ENV, "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}


def fixed_resources() -> Mapping[str, float] | None:
    """What this cluster has; None where it may have an autoscaler."""
    return None if "RAY_ADDRESS" in os.environ else ray.cluster_resources()


@contextmanager
def ray_session(cluster: ClusterConfig | None = None) -> Iterator[None]:
    """Use the Ray that is running (`RAY_ADDRESS`, or this process's own); else start a local one.

    A local cluster ends with the session. Ray binds its ports on every interface, so its token is
    what keeps others out; see docs/security.md.

    Args:
        cluster: what training will ask of a local cluster; None where nothing is trained.

    Raises:
        ClusterError: a local cluster is to be started and this machine cannot hold one job, or Ray
            started it without a token.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # Tune would save its own state first, which nothing reads: what is measured is published.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    return_memory()  # what planning the run took
    address = os.environ.get("RAY_ADDRESS")
    if address:
        env_vars = {key: value for key, value in _WORKER_ENV.items() if key not in _job_env()}
        with _quiet_backend():
            ray.init(address=address, runtime_env=_runtime_env(env_vars), log_to_driver=False)
    else:
        if cluster is not None:
            _check_machine(cluster)
        _ask_for_token()
        with _quiet_backend():
            ray.init(
                address="local",  # never a cluster that happens to run on this machine
                # Ray Data's read tasks find room beside as many one-core workers as there are
                # cores.
                num_cpus=(os.cpu_count() or 1) + 1,
                include_dashboard=False,
                runtime_env=_runtime_env(_LOCAL_ENV),
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    try:
        if not address and os.environ.get(_AUTH_MODE) != "token":
            raise ClusterError("Ray started a local cluster without a token; install ray>=2.59")
        yield
    finally:
        ray.shutdown()


def _ask_for_token() -> None:
    """A local cluster asks for its token, whatever the environment says.

    Ray reads the mode when it is imported. Where none is set a local cluster turns the token on
    itself, for this process too.
    """
    if os.environ.get(_AUTH_MODE) != "token":
        os.environ.pop(_AUTH_MODE, None)
    # Metrics are served to whoever asks, without a token.
    os.environ.setdefault("RAY_enable_metrics_collection", "0")


def _runtime_env(env_vars: Mapping[str, str]) -> dict[str, Any]:
    """Of every worker: what is hidden here is hidden in its logs and errors too."""
    found: dict[str, Any] = {"env_vars": dict(env_vars)}
    if secrets := hidden():

        def hide_here() -> None:
            for secret in secrets:
                hide(secret)

        found["worker_process_setup_hook"] = hide_here
    return found


@contextmanager
def _quiet_backend() -> Iterator[None]:
    """Start Ray so that its C++ side keeps to its log files; what goes wrong is raised anyway.

    It warns of every actor of Ray Data that a restart may miss its arguments, which the operator
    keeps for it; and it announces the level that keeps it from doing so.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _job_env() -> dict[str, str]:
    """Variables that the Ray job's own runtime environment sets; Ray refuses to set them again."""
    config = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    return (config.get("runtime_env") or {}).get("env_vars") or {}


@contextmanager
def quiet_data() -> Iterator[DataContext]:
    """Ray Data without its plans, bars and advice, which would drown our lines; then as it was."""
    from ray.data import DataContext  # training workers do without it

    log = logging.getLogger("ray.data")
    level = log.level
    log.setLevel(logging.CRITICAL)  # an error is raised too, and told once
    ours = DataContext.get_current().copy()
    ours.enable_progress_bars = False
    ours.issue_detectors_config.detectors = []
    try:
        with DataContext.current(ours):
            yield ours
    finally:
        log.setLevel(level)


def _check_machine(cluster: ClusterConfig) -> None:
    cores = os.cpu_count() or 1
    asked = cluster.workers_per_job * cluster.cpus_per_worker
    if asked > cores:
        raise ClusterError(
            f"a job asks for {asked:g} CPUs (cluster.workers_per_job x cpus_per_worker), this "
            f"machine has {cores}; ask for less, or set RAY_ADDRESS to a cluster"
        )
    gpus = cluster.workers_per_job * cluster.gpus_per_worker
    if gpus:
        import torch

        found = torch.cuda.device_count()
        if gpus > found:
            raise ClusterError(
                f"a job asks for {gpus:g} GPUs (cluster.workers_per_job x gpus_per_worker), this "
                f"machine has {found}; ask for less, or set RAY_ADDRESS to a cluster"
            )
