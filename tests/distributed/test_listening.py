"""What a local run listens on beyond loopback, and that none of it answers without the token."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys

import psutil
import pytest
import ray

from taskeff import errors
from taskeff.distributed.session import ray_session

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

OPEN = {44217, 44227}
"""Ports of docs/security.md whose /metrics need no token."""
LIVENESS = "/api/local_raylet_healthz"
JOIN = "import ray, sys; ray.init(address=sys.argv[1]); print('joined')"
ASK = """
import sys, urllib.error, urllib.request
for port in sys.argv[1:]:
    for path in ("/metrics", "/api/jobs/", "/api/local_raylet_healthz"):
        try:
            found = urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2)
            print(port, "counts" if found.read(6) == b"# HELP" else path)
        except OSError:
            pass
        except Exception:  # gRPC's frames are no HTTP
            pass
"""


def listening() -> set[int]:
    """Ports of this process and its children that are bound beyond loopback."""
    found = set()
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        for bound in process.net_connections("inet"):
            is_local = bound.laddr and ipaddress.ip_address(bound.laddr.ip).is_loopback
            if bound.status == psutil.CONN_LISTEN and not is_local:
                found.add(bound.laddr.port)
    return found


@pytest.mark.skipif(ray.is_initialized(), reason="another test's cluster is still there")
def test_nobody_joins_or_asks_without_the_token(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr(errors, "_hidden", {"from-the-environment"})
    before = listening()
    with ray_session():
        # Workers know what the driver hides.
        assert ray.get(ray.remote(errors.redact).remote("a from-the-environment b")) == "a *** b"
        assert os.environ["RAY_AUTH_MODE"] == "token"
        address = ray.get_runtime_context().gcs_address
        ports = listening() - before
        stranger = {**os.environ, "RAY_AUTH_MODE": "disabled"}
        asked = subprocess.run(
            [sys.executable, "-c", ASK, *map(str, ports)], capture_output=True, text=True
        )
        joined = subprocess.run(
            [sys.executable, "-c", JOIN, address], env=stranger, capture_output=True, text=True
        )
    assert ports, "Ray keeps to loopback now: say so in docs/security.md"
    assert joined.returncode != 0 and "joined" not in joined.stdout
    answers = set(asked.stdout.splitlines())
    liveness = {f"{port} {LIVENESS}" for port in ports}
    assert answers - liveness <= {f"{port} counts" for port in OPEN}
