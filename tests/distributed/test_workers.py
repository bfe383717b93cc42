"""A job whose model two Ray Train workers share."""

import pytest
from rich.console import Console

from taskeff.config_file import parse_config
from taskeff.distributed.executor import RayExecutor
from taskeff.run.driver import calibrate
from taskeff.run.plan import make_plan
from tests.helpers import TASKS, run_values

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def measured(model, storage, workers, strategy):
    """budget -> the results of one task's cells."""
    values = run_values(model, storage)
    values["training"] |= {"budgets": [8, 32], "max_steps": 8, "strategy": strategy}
    values["cluster"]["workers_per_job"] = workers
    config = parse_config(values, "test")
    assert calibrate(config, RayExecutor, Console(quiet=True), only_tasks=[TASKS[0]]) is None
    assert not (storage / "tiny/calibration.json").exists()
    return {cell.budget: result for cell, result in make_plan(config).results().items()}


def test_two_workers_measure_what_one_does(tiny_model, tmp_path):
    alone = measured(tiny_model, tmp_path / "alone", 1, "auto")
    shared = measured(tiny_model, tmp_path / "shared", 2, "fsdp")
    assert set(shared) == set(alone) == {0, 8, 32}
    for budget, result in shared.items():
        assert result["score"] == alone[budget]["score"]
        if budget:
            training, expected = result["training"], alone[budget]["training"]
            assert (training["strategy"], training["workers"]) == ("fsdp", 2)
            assert (expected["strategy"], expected["workers"]) == ("single", 1)
            assert training["losses"] == pytest.approx(expected["losses"], rel=5e-5)
