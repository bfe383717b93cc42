"""What breaks a calibration, really done to it: the rest is unaffected, nothing is measured twice,
and the end is the same, byte for byte."""

import os
import re
import resource
import shutil
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest
import yaml
from ray.cluster_utils import Cluster
from rich.console import Console

from taskeff.config_file import parse_config
from taskeff.distributed.executor import RayExecutor
from taskeff.errors import TaskeffError
from taskeff.run.driver import calibrate
from taskeff.run.plan import make_plan
from taskeff.tasks.task import Task
from tests.distributed.drivers import below, kept, read_until, start
from tests.helpers import TASKS, markers, run_values, write_config

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def same_calibration(ours, theirs) -> bool:
    """Whether two storages hold the same calibration, byte for byte."""
    first, second = (storage / "tiny/calibration.json" for storage in (ours, theirs))
    return first.read_bytes() == second.read_bytes()


@pytest.fixture
def cluster(monkeypatch):
    """A head node without room for a worker; nodes to be added."""
    # Nothing listens beyond loopback, and the cluster ends with the test.
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield made
    made.shutdown()


def raylet_of(node) -> int:
    """The process id of a node's raylet."""
    return node.all_processes["raylet"][0].process.pid


def test_a_cluster_that_grows_loses_a_node_and_a_trial(undisturbed, tiny_model, tmp_path, cluster):
    storage = tmp_path / "results"
    values = run_values(tiny_model, storage, cluster={"max_concurrent_jobs": 2})
    config = write_config(tmp_path, values)
    driver = start(config, RAY_ADDRESS=cluster.address)
    try:
        said = read_until(driver, "waiting for the cluster to grow")
        assert "1 x (1 CPU); the cluster has 1 x (0 CPU)" in said

        for door in ([], ["--local"], ["--part", "0/2"]):
            second = start(config, *door, RAY_ADDRESS=cluster.address)
            output, _ = second.communicate()
            assert second.returncode == 2, output
            words = " ".join(output.split())  # as a narrow terminal breaks the line
            assert re.search(r"driver [0-9a-f]{8} is working on this run; its lease runs", words)

        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        read_until(driver, "[  1/9]")
        finished = markers(storage)
        lost = next(node for node in nodes if below(raylet_of(node), "RayTrainWorker"))
        cluster.remove_node(lost, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        read_until(driver, "a worker died")
        trials = below(raylet_of(cluster.head_node), "ImplicitFunc")
        assert trials, "no trial was found on the head node"
        trials[0].kill()
        read_until(driver, "its trial died and starts again")
        output, _ = driver.communicate()
        assert driver.returncode == 0, output
    finally:
        driver.kill()
    after = markers(storage)
    assert len(after) == 12
    assert kept(finished, after)
    assert same_calibration(storage, undisturbed)


class Endless:
    """A training row whose text is longer than any memory."""

    id, target = "train-0", "x"

    @property
    def text(self) -> str:
        return "word " * (1 << 46)


class AtFirstCell:
    """A console's file that does something once the first cell is published."""

    def __init__(self, action):
        self.action = action
        self.said = ""

    def write(self, text: str) -> None:
        self.said += text
        if self.action and "[  1/" in self.said:
            action, self.action = self.action, None
            action()

    def flush(self) -> None:
        pass


def test_broken_tasks_and_a_failed_write_leave_the_others_alone(
    undisturbed, tiny_model, tmp_path, monkeypatch
):
    storage = tmp_path / "results"
    broken, hungry = "past_tense", "word_language"
    # One worker: whether it loads a model or writes a cell next, it fails and starts again.
    values = run_values(
        tiny_model, storage, cluster={"task_seeds_per_job": 5, "max_concurrent_jobs": 1}
    )
    values["tasks"]["held_out"] = [TASKS[2], broken, hungry]
    config = parse_config(values, "test")
    plan = make_plan(config)
    assert len(plan.cells) == 15
    whole = dict(plan.tasks)
    tasks = {
        **whole,
        broken: replace(
            whole[broken], train=tuple(replace(row, target=None) for row in whole[broken].train)
        ),
        hungry: replace(whole[hungry], train=(Endless(),) * len(whole[hungry].train)),
    }
    for name in (broken, hungry):
        # They go by the good rows' name, and to the workers as they are.
        tasks[name].__dict__["data_hash"] = whole[name].data_hash
    monkeypatch.setattr(Task, "publish", lambda self, store: self)
    plan.tasks.clear()
    plan.tasks.update(tasks)
    finished = {}

    def fail_writes() -> None:
        finished.update(markers(storage))
        (worker,) = below(psutil.Process().pid, "RayTrainWorker")
        # Its next write fails with "File too large"; a new process is free of the limit.
        worker.rlimit(resource.RLIMIT_FSIZE, (64, 64))

    watch = AtFirstCell(fail_writes)
    monkeypatch.setattr("taskeff.run.driver.make_plan", lambda *_, **__: plan)
    with pytest.raises(TaskeffError, match="curves: 2 failed") as failed:
        calibrate(config, RayExecutor, Console(file=watch, width=200))
    monkeypatch.undo()
    assert "File too large" in watch.said
    said = str(failed.value)
    assert re.search(rf"- {broken} seed 0: .*has no label", said), said
    assert re.search(rf"- {hungry} seed 0: .*out of memory", said), said
    assert len(markers(storage)) == 3 * 3 + 2
    assert (storage / "tiny/logs" / f"{hungry}-0").is_dir()
    between = markers(storage)
    assert finished
    assert kept(finished, between)

    calibrate(config, RayExecutor, Console(quiet=True))
    after = markers(storage)
    assert len(after) == 15 + 5
    assert kept(between, after)
    assert same_calibration(storage, undisturbed)


FULL = """
set -e
mount -t tmpfs -o size=64m tmpfs "$STORAGE"
cp -rp "$DONE"/. "$STORAGE"
fill() { dd if=/dev/zero of="$STORAGE/filler" bs=4k status=none 2>/dev/null || true; }
fill
set +e
"$@"; echo "full: $?"
rm "$STORAGE/filler"
"$@"; echo "again: $?"
cp -rp "$STORAGE"/. "$DONE"
"""


def test_a_full_storage_is_said_and_keeps_what_is_measured(undisturbed, tiny_model, tmp_path):
    private = subprocess.run(["unshare", "-rm", "true"], capture_output=True)
    if private.returncode:
        pytest.skip("no private mounts here, so no small file system")
    storage, done = tmp_path / "results", tmp_path / "done"
    storage.mkdir()
    shutil.copytree(
        undisturbed / "tiny/cells/task=name_gender", done / "tiny/cells/task=name_gender"
    )
    before = markers(done)
    assert len(before) == 3
    values = run_values(tiny_model, storage, cluster={"task_seeds_per_job": 2, "max_failures": 0})
    config = write_config(tmp_path, values)
    command = [sys.executable, "-m", "taskeff.cli", "calibrate", "-c", str(config)]
    ran = subprocess.run(
        ["unshare", "-rm", "sh", "-c", FULL, "sh", *command],
        env={**os.environ, "STORAGE": str(storage), "DONE": str(done)},
        capture_output=True,
        text=True,
    )
    output = ran.stdout + ran.stderr
    assert "full: 2" in output, output
    assert "the storage is full" in output, output
    assert "Traceback" not in output
    assert "again: 0" in output, output
    after = markers(done)
    assert len(after) == 12
    assert kept(before, after)
    assert same_calibration(done, undisturbed)


def test_room_that_never_comes_is_said(tiny_model, tmp_path, cluster):
    values = run_values(tiny_model, tmp_path / "results")
    values["cluster"] = {"placement_timeout": 0.01}
    driver = start(write_config(tmp_path, values), RAY_ADDRESS=cluster.address)
    output, _ = driver.communicate()
    assert driver.returncode == 2
    said = " ".join(output.split())
    assert "nothing could be placed within 0.01 minutes" in said
    assert "a job needs 1 x (1 CPU); the cluster has 1 x (0 CPU)" in said
    assert "Traceback" not in output
    assert yaml.safe_load((tmp_path / "results/tiny/config.yaml").read_text())["name"] == "tiny"
    assert not list((tmp_path / "results/tiny/lease").iterdir())
