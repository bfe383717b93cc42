"""A hub out of reach is asked once, and everything that needs it is one error."""

from __future__ import annotations

import urllib.request

import datasets
import pytest
import yaml
from huggingface_hub import constants

from taskeff import hub
from taskeff.config_file import parse_config
from taskeff.run.validate import validate
from tests.helpers import TASKS, run_values

DEAD = "http://127.0.0.1:9"


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """How often the hub was asked; everything else than the probe is refused too."""
    monkeypatch.setattr(hub, "_away", [])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", DEAD)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setattr(datasets.config, name, False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    calls = []
    real = urllib.request.urlopen
    monkeypatch.setattr(urllib.request, "urlopen", lambda *a, **k: calls.append(a) or real(*a, **k))
    return calls


def hub_task(folder, name):
    path = folder / f"{name}.yaml"
    fields = {"task": name, "dataset_path": f"nobody/{name}", "doc_to_text": "{{a}}"}
    path.write_text(yaml.safe_dump({**fields, "doc_to_target": "{{b}}"}))
    return str(path)


def test_one_probe_and_one_error(asked, tmp_path):
    values = run_values("nobody/no-model", tmp_path / "storage")
    names = [hub_task(tmp_path, name) for name in ("one", "two", "three")]
    values["tasks"] = {"calibration": [*names, *TASKS[:2]], "held_out": []}
    found = validate(parse_config(values, "test"))
    (problem,) = [str(one) for one in found.problems if "hub" in str(one)]
    assert "nobody/no-model, one, two, three" in problem and DEAD in problem
    assert "\n" not in problem and len(asked) == 1
    assert len(found.tasks) == 2
    again = validate(parse_config(values, "test"))
    assert len(asked) == 1 and sum("hub" in str(one) for one in again.problems) == 1


def test_a_run_of_this_machine_asks_nobody(asked, tiny_model, tmp_path):
    assert not validate(parse_config(run_values(tiny_model, tmp_path), "test")).problems
    assert not asked
