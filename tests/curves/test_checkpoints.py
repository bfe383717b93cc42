"""A cell that dies in the middle goes on from its stored state and ends bit for bit the same."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from taskeff.config import RunConfig
from taskeff.curves.checkpoints import Checkpoints
from tests.curves.rows import folders, measure_interrupted, measure_row, results, row_config

ROOT = Path(__file__).parents[2]
STORED = {"checkpoint_minutes": 1e-9}  # after every step


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


@pytest.fixture(scope="module", params=["full", "lora"])
def undisturbed(request, tiny_model, tmp_path_factory) -> RunConfig:
    torch.set_num_threads(1)
    storage = tmp_path_factory.mktemp("undisturbed")
    config = row_config(tiny_model, storage, method=request.param)
    measure_row(config)
    return config


@pytest.mark.parametrize("saves", [1, 7])
def test_a_cell_goes_on_where_it_was(undisturbed, tiny_model, tmp_path, saves):
    config = row_config(tiny_model, tmp_path, method=undisturbed.training.method, **STORED)
    measure_interrupted(config, saves)
    assert results(config)[8]["training"]["resumed_at"] == saves
    assert outcome(config) == outcome(undisturbed)


def test_nothing_of_a_model_is_stored_unless_asked(undisturbed, tiny_model, tmp_path):
    config = row_config(tiny_model, tmp_path, **STORED)
    measure_interrupted(config)
    for run in (undisturbed, config):
        for folder in folders(run).values():
            assert folder.names() == ["predictions.parquet", "result.json"]


def test_a_state_of_other_workers_is_not_used(undisturbed, tiny_model, tmp_path, monkeypatch):
    config = row_config(tiny_model, tmp_path, method=undisturbed.training.method, **STORED)
    save = Checkpoints.save

    def save_as_another(self, strategy, *arguments):
        save(self, strategy, *arguments)
        marker = self._folder.read_json("latest.json")
        self._folder.write_json({**marker, "workers": 2}, "latest.json")

    monkeypatch.setattr(Checkpoints, "save", save_as_another)
    measure_interrupted(config)
    assert results(config)[8]["training"]["resumed_at"] == 0
    assert outcome(config) == outcome(undisturbed)


@pytest.mark.slow
def test_a_killed_process_loses_one_step(tiny_model, tmp_path):
    torch.set_num_threads(1)
    whole = row_config(tiny_model, tmp_path / "whole")
    measure_row(whole)
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "import torch\n"
        "from taskeff.curves.checkpoints import Checkpoints\n"
        "from tests.curves.rows import measure_row, row_config\n"
        "torch.set_num_threads(1)\n"
        "save = Checkpoints.save\n"
        "def save_and_die(self, strategy, best, progress):\n"
        "    if progress['step'] == 5:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    save(self, strategy, best, progress)\n"
        "Checkpoints.save = save_and_die\n"
        "measure_row(row_config(Path(sys.argv[1]), Path(sys.argv[2]), checkpoint_minutes=1e-9))\n"
    )
    storage = tmp_path / "killed"
    command = [sys.executable, "-c", program, str(tiny_model), str(storage)]
    assert subprocess.run(command, cwd=ROOT).returncode == -signal.SIGKILL
    config = row_config(tiny_model, storage, **STORED)
    assert folders(config)[8].exists("checkpoint", "latest.json")
    measure_row(config)
    assert results(config)[8]["training"]["resumed_at"] == 4
    assert outcome(config) == outcome(whole)
