"""A cell that dies in the middle goes on from its stored state and ends bit for bit the same."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from taskeff.config import RunConfig
from taskeff.finetune.checkpoints import Checkpoints
from tests.finetune.small import folders, measure_cells, measure_interrupted, results, small_config

ROOT = Path(__file__).parents[2]
STORED = {"checkpoint_minutes": 1e-9}  # after every step
SHORT = {"budgets": [8], "max_steps": 6}


def outcome(config: RunConfig) -> dict:
    """Everything that a resumed cell must have in common with one that was not interrupted."""
    found = {}
    for budget, result in results(config).items():
        training = {
            k: v
            for k, v in (result["training"] or {}).items()
            if k not in ("seconds", "resumed_at")
        }
        table = folders(config)[budget].read_table("predictions.parquet").to_pylist()
        found[budget] = (training, result["score"], table)
    return found


@pytest.fixture(scope="module")
def undisturbed(tiny_model, tmp_path_factory) -> RunConfig:
    torch.set_num_threads(1)
    config = small_config(tiny_model, tmp_path_factory.mktemp("undisturbed"), **SHORT)
    measure_cells(config)
    return config


def test_a_cell_goes_on_where_it_was_and_nothing_stays(undisturbed, tiny_model, tmp_path):
    config = small_config(tiny_model, tmp_path, **SHORT, **STORED)
    measure_interrupted(config, 3)
    assert results(config)[8]["training"]["resumed_at"] == 3
    assert outcome(config) == outcome(undisturbed)
    # Nothing of a model is stored unless asked.
    for run in (undisturbed, config):
        for folder in folders(run).values():
            assert folder.names() == ["predictions.parquet", "result.json"]


def test_a_state_of_other_workers_is_not_used(undisturbed, tiny_model, tmp_path, monkeypatch):
    config = small_config(tiny_model, tmp_path, **SHORT, **STORED)
    save = Checkpoints.save

    def save_as_another(self, strategy, *arguments):
        save(self, strategy, *arguments)
        marker = self._folder.read_json("latest.json")
        self._folder.write_json({**marker, "workers": 2}, "latest.json")

    monkeypatch.setattr(Checkpoints, "save", save_as_another)
    measure_interrupted(config)
    assert results(config)[8]["training"]["resumed_at"] == 0
    assert outcome(config) == outcome(undisturbed)


@pytest.mark.parametrize("damaged", ["latest.json", "step=2/__0_0.distcp"])
def test_a_damaged_state_is_not_used(undisturbed, tiny_model, tmp_path, monkeypatch, damaged):
    config = small_config(tiny_model, tmp_path, **SHORT, **STORED)
    save = Checkpoints.save

    def save_and_damage(self, *arguments):
        save(self, *arguments)
        parts = damaged.split("/")
        if self._folder.exists(*parts):
            self._folder.write_bytes(self._folder.read_bytes(*parts)[:20], *parts)

    monkeypatch.setattr(Checkpoints, "save", save_and_damage)
    measure_interrupted(config)
    assert results(config)[8]["training"]["resumed_at"] == 0
    assert outcome(config) == outcome(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_killed_process_loses_one_step(tiny_model, tmp_path, method):
    torch.set_num_threads(1)
    whole = small_config(tiny_model, tmp_path / "whole", method=method)
    measure_cells(whole)
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "import torch\n"
        "from taskeff.finetune.checkpoints import Checkpoints\n"
        "from tests.finetune.small import measure_cells, small_config\n"
        "torch.set_num_threads(1)\n"
        "save = Checkpoints.save\n"
        "def save_and_die(self, strategy, best, progress):\n"
        "    if progress['step'] == 5:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    save(self, strategy, best, progress)\n"
        "Checkpoints.save = save_and_die\n"
        "model, storage = map(Path, sys.argv[1:3])\n"
        "settings = {'method': sys.argv[3], 'checkpoint_minutes': 1e-9}\n"
        "measure_cells(small_config(model, storage, **settings))\n"
    )
    storage = tmp_path / "killed"
    command = [sys.executable, "-c", program, str(tiny_model), str(storage), method]
    assert subprocess.run(command, cwd=ROOT).returncode == -signal.SIGKILL
    config = small_config(tiny_model, storage, method=method, **STORED)
    assert folders(config)[8].exists("checkpoint", "latest.json")
    measure_cells(config)
    assert results(config)[8]["training"]["resumed_at"] == 4
    assert outcome(config) == outcome(whole)
