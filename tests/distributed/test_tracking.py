"""Trackers: named ones get every cell, missing packages are said beforehand."""

import pytest

from taskeff.config_file import parse_config
from taskeff.distributed.executor import RayExecutor, trackers
from taskeff.errors import ConfigError
from tests.helpers import run_values


def config(tmp_path, **tracking):
    return parse_config(run_values(tmp_path, tmp_path, tracking=tracking), "test")


def test_nothing_is_tracked_unless_asked(tmp_path):
    assert trackers(config(tmp_path)) == []


@pytest.mark.parametrize(
    ("setting", "package"), [("mlflow_uri", "mlflow"), ("wandb_project", "wandb")]
)
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, setting, package):
    monkeypatch.setattr("taskeff.run.checks.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"tracking.{setting} needs .*taskeff\[{package}\]"):
        RayExecutor(config(tmp_path, **{setting: "x"}))


def test_cells_reach_mlflow(tmp_path, monkeypatch):
    # A database needs more than the light package; a server would be used elsewhere.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = pytest.importorskip("mlflow")
    from ray.tune.experiment import Trial
    from ray.tune.registry import register_trainable

    uri = (tmp_path / "mlruns").as_uri()
    (tracker,) = trackers(config(tmp_path, mlflow_uri=uri))
    register_trainable("grid", lambda parameters: None)
    trial = Trial("grid", config={"job": "name_gender-0"}, stub=True)
    tracker.setup()
    tracker.on_trial_start(0, [trial], trial)
    cell = {"task": "name_gender", "budget": 32, "seed": 0, "score": 0.75, "seconds": 2.0}
    tracker.on_trial_result(0, [trial], trial, {**cell, "training_iteration": 1})
    tracker.on_trial_complete(1, [trial], trial)
    mlflow.set_tracking_uri(uri)
    (run,) = mlflow.search_runs(experiment_names=["tiny"], output_format="list")
    assert run.data.metrics["score"] == 0.75
    assert run.data.metrics["budget"] == 32
    assert run.data.params["job"] == "name_gender-0"
    assert run.info.status == "FINISHED"
