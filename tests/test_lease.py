"""One driver per run: refusal, expiry, take-over, release."""

import os
import subprocess
import sys

import pytest

from taskeff.errors import ClusterError, StorageError
from taskeff.lease import Lease
from taskeff.storage import Store
from tests.filesystems import empty_bucket
from tests.leases import Clock, race

bucket = pytest.fixture(empty_bucket)


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    return Store(str(tmp_path) if request.param == "local" else f"memory://lease/{tmp_path.name}")


def test_the_second_driver_is_refused_by_owner_and_expiry(store):
    clock = Clock()
    first, second = Lease(store, 60, clock=clock), Lease(store, 60, clock=clock)
    first.acquire()
    with pytest.raises(ClusterError, match=rf"{first.owner}.*1970-01-12 13:47:40 UTC"):
        second.acquire()
    first.release()
    second.acquire()
    assert second.held()


def test_renewal_moves_the_expiry(store):
    clock = Clock()
    first, second = Lease(store, 60, clock=clock), Lease(store, 60, clock=clock)
    first.acquire()
    clock.now += 50
    assert first.renew()
    clock.now += 50
    with pytest.raises(ClusterError, match="is working on this run"):
        second.acquire()


def test_one_of_many_wins_an_expired_lease(tmp_path):
    clock = Clock()
    store = Store(str(tmp_path))
    Lease(store, 60, clock=clock).acquire()
    clock.now += 61
    rivals = [Lease(store, 60, clock=clock) for _ in range(8)]
    won = race(rivals)
    assert len(won) == 1
    assert won[0].held()


def test_a_driver_that_died_here_holds_nothing(tmp_path):
    program = (
        "import os, sys; from taskeff.lease import Lease; from taskeff.storage import Store\n"
        "Lease(Store(sys.argv[1]), 3600).acquire(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    store = Store(str(tmp_path))
    assert store.names("lease")
    Lease(store, 60).acquire()


def test_a_live_process_elsewhere_is_believed(tmp_path, monkeypatch):
    store = Store(str(tmp_path))
    Lease(store, 3600).acquire()
    monkeypatch.setattr("taskeff.lease._machine", lambda: "elsewhere")
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("process ids of another machine"))
    with pytest.raises(ClusterError, match="is working on this run"):
        Lease(store, 60).acquire()


def test_the_lease_names_no_machine(tmp_path):
    import socket

    store = Store(str(tmp_path))
    with Lease(store, 60):
        (name,) = store.names("lease")
        assert socket.gethostname() not in store.read_bytes("lease", name).decode()
    assert not store.names("lease")


def leases(store, clock, *parts):
    return [Lease(store, 60, part=part, clock=clock) for part in parts]


def test_parts_of_one_run_work_side_by_side_and_exclude_the_whole(store):
    clock = Clock()
    first, second, whole = leases(store, clock, (0, 2), (1, 2), None)
    first.acquire()
    second.acquire()
    with pytest.raises(ClusterError, match=r"working on part [01]/2 of this run"):
        whole.acquire()
    with pytest.raises(ClusterError, match=rf"{first.owner} is working on part 0/2"):
        leases(store, clock, (0, 2))[0].acquire()
    with pytest.raises(ClusterError, match=r"part [01]/2 of this run"):
        leases(store, clock, (2, 3))[0].acquire()
    assert first.held() and second.held()
    first.release()
    second.release()
    whole.acquire()
    with pytest.raises(ClusterError, match=rf"{whole.owner} is working on this run"):
        first.acquire()
    whole.release()
    assert not store.names("lease")


@pytest.mark.parametrize(
    ("slept", "woke"), [(None, None), ((0, 2), None), (None, (0, 2)), ((1, 3), (1, 2))]
)
def test_who_slept_past_the_expiry_learns_of_whatever_excludes_it(store, slept, woke):
    clock = Clock()
    first, second = leases(store, clock, slept, woke)
    first.acquire()
    clock.now += 61
    second.acquire()
    assert not first.renew()
    with pytest.raises(ClusterError, match="lost this run's lease"):
        first.check()
    first.release()
    assert second.held()
    second.release()
    assert not first.held()
    assert not store.names("lease")


def test_of_a_part_and_the_whole_at_once_no_two_go_on(tmp_path):
    clock, store = Clock(), Store(str(tmp_path))
    for _ in range(5):
        rivals = leases(store, clock, *[(0, 2), None] * 4)
        race(rivals)
        assert sum(lease.held() for lease in rivals) <= 1
        for lease in rivals:
            lease.release()
        with rivals[0]:  # nothing is left that would keep the next driver out
            assert rivals[0].held()


def test_an_outage_shorter_than_the_lease_ends_nothing(bucket):
    clock = Clock()
    (lease,) = leases(Store("bucket://shelf/run"), clock, None)
    lease.acquire()
    bucket.fault = LookupError("no answer")
    clock.now += 59
    lease.check()
    with pytest.raises(StorageError, match="no answer"):
        lease.renew()
    lease.check()
    clock.now += 1
    with pytest.raises(StorageError, match="no answer"):
        lease.check()
    bucket.fault = None
    lease.check()
    assert lease.renew()
