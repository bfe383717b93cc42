"""`ray job submit` to a head node that asks for a token."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from tests.distributed.drivers import end
from tests.helpers import run_values, write_config

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nothing listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def ray_command(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("ray")), *arguments]


@pytest.fixture
def head(monkeypatch):
    """(address, environment) of a head node's dashboard and of those that may use it."""
    # Sockets' paths are short, so not below pytest's own folder.
    folder = tempfile.mkdtemp(prefix="head")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_TMPDIR": folder,
    }
    gcs, dashboard, agent, client = free_ports(4)
    command = ray_command(
        "start", "--head", "--block", f"--port={gcs}", "--num-cpus=3",
        "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}",
    )  # fmt: skip
    started = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        wait_for(started, address)
        yield address, environment
    finally:
        end([*psutil.Process(started.pid).children(recursive=True), psutil.Process(started.pid)])
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(started: subprocess.Popen, address: str) -> None:
    """Until the dashboard answers, be it with a refusal."""
    patient = requests.Session()
    patient.mount(
        address, HTTPAdapter(max_retries=Retry(connect=120, backoff_factor=0.5, backoff_max=1))
    )
    try:
        patient.get(f"{address}/api/jobs/", timeout=10)
    except requests.ConnectionError:
        end([psutil.Process(started.pid)])
        raise AssertionError(f"the head node does not answer: {started.stdout.read()}") from None


def status(address: str, token: str | None = None) -> int | None:
    """What the list of jobs answers; None while nobody does."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{address}/api/jobs/", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as refusal:
        return refusal.code
    except OSError:
        return None


def test_a_job_with_the_token_calibrates(undisturbed, tiny_model, tmp_path, head):
    address, environment = head
    assert status(address) == 401
    assert status(address, "wrong") in (401, 403)
    assert status(address, environment["RAY_AUTH_TOKEN"]) == 200
    storage = tmp_path / "results"
    config = write_config(tmp_path, run_values(tiny_model, storage))
    submit = ray_command(
        "job", "submit", "--address", address, "--working-dir", str(ROOT),
        "--runtime-env", str(ROOT / "cluster/runtime_env.yaml"),
        "--", sys.executable, "jobs/calibrate.py", "-c", str(config),
    )  # fmt: skip
    refused = subprocess.run(
        submit, env={**environment, "RAY_AUTH_TOKEN": "wrong"}, capture_output=True, text=True
    )
    assert refused.returncode != 0
    assert not storage.exists()
    done = subprocess.run(submit, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[  9/9]" in done.stdout
    assert environment["RAY_AUTH_TOKEN"] not in done.stdout
    ours, theirs = (s / "tiny/calibration.json" for s in (storage, undisturbed))
    assert ours.read_bytes() == theirs.read_bytes()
