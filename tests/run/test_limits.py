"""A run ends by itself when its hours are up, cleanly, and goes on when it is started again."""

import io

import pytest
from rich.console import Console

from taskeff.config_file import parse_config
from taskeff.errors import ConfigError
from taskeff.run.driver import calibrate
from taskeff.run.inline import InlineExecutor
from taskeff.run.limits import LimitError, Limits
from taskeff.run.plan import make_plan
from tests.helpers import run_values


@pytest.mark.parametrize(
    ("limit", "hours"), [({"max_hours": 3}, 3.0), ({"max_gpu_hours": 96}, 3.0), ({}, None)]
)
def test_a_limit_is_reached_at_its_hour(tiny_model, tmp_path, limit, hours):
    clock = [100.0]
    cluster = {"workers_per_job": 2, "gpus_per_worker": 1, **limit}
    config = parse_config(run_values(tiny_model, tmp_path, cluster=cluster), "test")
    limits = Limits(config, lanes=16, now=lambda: clock[0])
    clock[0] += 3600 * 3 - 1
    limits.check()
    clock[0] += 1
    if hours is None:
        limits.check()
    else:
        with pytest.raises(LimitError, match=next(iter(limit))):
            limits.check()


def test_the_gpus_of_more_actors_than_lanes_count(tiny_model, tmp_path):
    clock = [0.0]
    cluster = {"gpus_per_worker": 1, "max_gpu_hours": 16}
    values = run_values(tiny_model, tmp_path, cluster=cluster, scoring={"actors": [1, 16]})
    limits = Limits(parse_config(values, "test"), lanes=2, now=lambda: clock[0])
    clock[0] = 3600.0
    with pytest.raises(LimitError, match="max_gpu_hours"):
        limits.check()


def test_gpu_hours_of_a_run_without_gpus_are_refused(tiny_model, tmp_path):
    values = run_values(tiny_model, tmp_path, cluster={"max_gpu_hours": 1})
    with pytest.raises(ConfigError, match="the run uses no GPU"):
        parse_config(values, "test")


@pytest.mark.slow
def test_a_run_out_of_time_keeps_what_is_measured_and_goes_on(tiny_model, tmp_path, monkeypatch):
    values = run_values(tiny_model, tmp_path)
    config = parse_config(values, "test")
    plan = make_plan(config)
    check = Limits.check

    def stop_after_one_cell(self):
        check(self)
        if plan.results():
            raise LimitError("cluster.max_hours 1 is reached")

    monkeypatch.setattr(Limits, "check", stop_after_one_cell)
    said = io.StringIO()
    assert calibrate(config, InlineExecutor, Console(file=said)) is None
    assert "stopped: cluster.max_hours 1 is reached" in said.getvalue()
    measured = plan.results()
    assert 0 < len(measured) < len(plan.cells)
    monkeypatch.setattr(Limits, "check", check)
    assert calibrate(config, InlineExecutor, Console(file=io.StringIO())) is not None
    after = plan.results()
    assert {cell: after[cell] for cell in measured} == measured
