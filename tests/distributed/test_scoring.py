"""CoS-Low where the cluster has no room for its actors."""

import pytest
from rich.console import Console

from taskeff.config import parse_config
from taskeff.distributed.executor import RayExecutor
from taskeff.errors import ClusterError
from taskeff.run.plan import make_plan
from taskeff.run.progress import Progress
from tests.helpers import run_values

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_no_room_is_said_and_not_waited_for_without_end(tiny_model, tmp_path):
    values = run_values(tiny_model, tmp_path)
    values["cluster"] = {"cpus_per_worker": 1024, "placement_timeout": 0.05}
    plan = make_plan(parse_config(values, "test"))
    said = r"for 2 actors of 512 CPU; the cluster has 1 x \("
    progress = Progress(Console(quiet=True), {}, total=3)
    with RayExecutor(plan.config) as executor, pytest.raises(ClusterError, match=said):
        executor.coslow(plan, dict.fromkeys(plan.tasks, 1.0), progress, lambda: None)
