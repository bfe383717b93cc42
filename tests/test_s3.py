"""A run on S3, against a server on this machine: leases, outages, what is not there."""

import io
import uuid

import fsspec
import pytest
from moto import server as moto
from moto import settings as moto_settings
from rich.console import Console

from taskeff.config_file import parse_config
from taskeff.errors import ClusterError, StorageError, TaskeffError
from taskeff.lease import Lease
from taskeff.run.driver import calibrate
from taskeff.run.inline import InlineExecutor
from taskeff.run.plan import make_plan
from taskeff.storage import Store
from tests.helpers import run_values
from tests.leases import Clock, race

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
SECONDS = 60.0


class Server:
    """A local S3 that can go away and come back with what it held."""

    def __init__(self) -> None:
        self._port = 0
        self.start()

    def start(self) -> None:
        self._server = moto.ThreadedMotoServer("127.0.0.1", self._port, verbose=False)
        self._server.start()
        _, self._port = self._server.get_host_and_port()
        self.url = f"http://127.0.0.1:{self._port}"

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture
def server(monkeypatch):
    made = Server()
    for name, value in {
        "AWS_ENDPOINT_URL": made.url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()
    yield made
    fsspec.filesystem("s3").clear_instance_cache()
    made.stop()


@pytest.fixture
def store(server):
    bucket = f"bucket-{uuid.uuid4().hex}"
    fsspec.filesystem("s3").mkdir(bucket)
    return Store(f"s3://{bucket}/results")


def test_a_calibration_goes_from_nothing_to_its_page_and_is_not_measured_twice(store, tiny_model):
    config = parse_config(run_values(tiny_model, store.uri), "test")
    assert calibrate(config, InlineExecutor, Console(file=io.StringIO())) is not None
    run = store.child("tiny")
    assert b"<html" in run.read_bytes("report.html")
    fit = run.read_bytes("calibration.json")
    plan = make_plan(config)
    assert plan.results().keys() == plan.cells.keys()
    said = io.StringIO()
    calibrate(config, InlineExecutor, Console(file=said))
    assert f"all {len(plan.cells)} cells are measured already" in said.getvalue()
    assert run.read_bytes("calibration.json") == fit


def test_of_eight_drivers_one_gets_the_run(store):
    won = race([Lease(store, SECONDS) for _ in range(8)])
    assert len(won) == 1
    assert won[0].held()


def test_an_outage_never_leaves_two_drivers_on_a_run(server, store):
    clock = Clock()
    first, second = (Lease(store, SECONDS, clock=clock) for _ in range(2))
    first.acquire()
    server.stop()
    clock.now += 20
    first.check()  # nobody can have taken it
    with pytest.raises(StorageError):
        second.acquire()
    clock.now += SECONDS
    with pytest.raises(StorageError, match=r"s3://bucket-"):
        first.check()  # it has stopped before anybody else may start
    server.start()
    second.acquire()
    with pytest.raises(ClusterError, match="lost this run's lease"):
        first.check()
    assert second.held()


def test_an_outage_shorter_than_the_lease_ends_nothing(server, store):
    clock = Clock()
    first, second = (Lease(store, SECONDS, clock=clock) for _ in range(2))
    first.acquire()
    server.stop()
    clock.now += 20
    first.check()
    server.start()
    assert first.renew()
    clock.now += SECONDS - 1
    with pytest.raises(ClusterError, match="is working on this run"):
        second.acquire()
    first.check()


def test_a_bucket_that_is_not_there_is_named_and_not_made(server, tiny_model):
    config = parse_config(run_values(tiny_model, "s3://bucket-of-a-typo/results"), "test")
    with pytest.raises(TaskeffError, match=r"s3://bucket-of-a-typo/results.*not writable"):
        calibrate(config, InlineExecutor, Console(file=io.StringIO()))
    assert "bucket-of-a-typo" not in fsspec.filesystem("s3").ls("", refresh=True)


def test_keys_that_are_wrong_are_said_with_the_uri(store, monkeypatch):
    store.write_bytes(b"x", "file")
    monkeypatch.setattr(moto_settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
    with pytest.raises(StorageError, match=r"cannot read s3://bucket-.*/results/file"):
        store.read_bytes("file")
    with pytest.raises(StorageError, match="not writable"):
        store.check_writable()
