"""CoS-Low where the cluster has no room for its actors."""

import pytest
import ray
from rich.console import Console

from taskeff.config import parse_config
from taskeff.curves.plan import make_plan
from taskeff.distributed.scoring import measure_signals
from taskeff.errors import ClusterError
from tests.helpers import run_values

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_no_room_is_said_and_not_waited_for_without_end(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    values = run_values(tiny_model, tmp_path)
    values["cluster"] = {"cpus_per_worker": 16, "placement_timeout": 0.05}
    plan = make_plan(parse_config(values, "test"))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        with pytest.raises(ClusterError, match=r"for 2 actors of 8 CPU; the cluster has 1 x \(2"):
            measure_signals(plan, Console(quiet=True))
    finally:
        ray.shutdown()
