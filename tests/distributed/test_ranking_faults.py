"""What is killed in the middle of a ranking costs nothing but time."""

import os
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import yaml
from ray.cluster_utils import Cluster

from taskeff.distributed.coslow import OnRay
from taskeff.rank_config import RankConfig
from taskeff.run.ranking import rank
from tests.distributed import candidates as made
from tests.distributed import engines
from tests.distributed.test_ranking import QUIET, scores

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(240)]
NAMES = ("kinds", "feelings", "long")
ROWS = {"kinds": 60, "feelings": 60, "long": 150}
POOL = {"kinds": 48, "feelings": 48, "long": 120}


@pytest.fixture(scope="module")
def inputs(tiny_model, tmp_path_factory):
    """(manifest, family) of three labelled data sets in fourteen shards."""
    folder = tmp_path_factory.mktemp("inputs")
    entries = []
    for seed, (name, n) in enumerate(ROWS.items()):
        labels = made.LABELS["feelings" if name == "feelings" else "kinds"]
        made.write_lines(folder / f"{name}.jsonl", made.word_rows(labels, seed, n))
        entries.append(made.entry(name, labels))
    return made.write_manifest(folder, entries), made.family(tiny_model, folder)


def configured(tiny_model, inputs, folder: Path, **scoring):
    manifest, family = inputs
    scoring = {"shard_rows": 16, "actors": [2, 2], "readers": 1, **scoring}
    return made.rank_config(tiny_model, manifest, folder / "out", family, scoring=scoring)


@pytest.fixture(scope="module")
def undisturbed(tiny_model, inputs, tmp_path_factory):
    """The folder of a ranking that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    rank(configured(tiny_model, inputs, folder), OnRay(), QUIET)
    return folder


def assert_equal(folder: Path, undisturbed: Path) -> None:
    """Every row is scored exactly once, and every number is the undisturbed run's."""
    for name in NAMES:
        found = scores(folder, name)
        assert len(found) == POOL[name]
        assert found == scores(undisturbed, name)
    ours, theirs = (pq.read_table(f / "out" / "ranking.parquet") for f in (folder, undisturbed))
    assert ours.equals(theirs)
    assert ours["status"].to_pylist() == ["ranked"] * 3


def test_an_actor_killed_mid_stream_is_replaced(tiny_model, inputs, undisturbed, tmp_path):
    engines.Gate(tmp_path / "gate").build()
    config = configured(tiny_model, inputs, tmp_path)
    rank(config, OnRay(partial(engines.DiesOnce, tmp_path / "gate")), QUIET)
    assert (tmp_path / "gate" / "killed").exists()
    assert_equal(tmp_path, undisturbed)


def start(config: RankConfig, engine: str, folder: Path, **environment: str) -> subprocess.Popen:
    """A ranking in a process of its own."""
    path = folder / "score.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True)))
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.distributed.engines",
            str(path),
            engine,
            str(folder / "gate"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def test_a_node_that_is_removed_is_made_up_for(
    tiny_model, inputs, undisturbed, tmp_path, monkeypatch
):
    # Nothing listens beyond loopback, and the cluster ends with the test.
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    gate = engines.Gate(tmp_path / "gate").build()
    # Whatever runs, runs on the node that is to be removed, until another takes its place.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        doomed = cluster.add_node(num_cpus=2)
        (gate.folder / "doomed").write_text(doomed.node_id)
        config = configured(tiny_model, inputs, tmp_path)
        driver = start(config, "StandsOnDoomedNode", tmp_path, RAY_ADDRESS=cluster.address)
        gate.wait_until_reached()
        cluster.add_node(num_cpus=2)
        cluster.remove_node(doomed, allow_graceful=False)
        output, _ = driver.communicate()
    finally:
        cluster.shutdown()
    assert driver.returncode == 0, output
    assert_equal(tmp_path, undisturbed)


def test_a_killed_driver_goes_on_where_it_was(tiny_model, inputs, undisturbed, tmp_path):
    gate = engines.Gate(tmp_path / "gate").build()
    config = configured(tiny_model, inputs, tmp_path)
    driver = start(config, "StandsAtThird", tmp_path)
    gate.wait_until_reached()
    below = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    for process in below:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(below, timeout=30)
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("part-*.parquet")}
    assert 2 <= len(kept) < 14
    rank(config, OnRay(), QUIET)
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert_equal(tmp_path, undisturbed)
