"""All published tasks from the hub to a calibration, on made-up rows and a tiny model.

The rows have the columns of the real data sets and reach the run through the real clients: Parquet
files on a hub on loopback, downloaded once, then read from the local cache with no hub at all.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.helpers import write_config
from tests.tasks.hub import write_hub
from tests.tasks.hub_server import serve

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
REPOSITORY = Path(__file__).parents[2]
MODEL = "made-up/tiny"
BUDGETS = [8, 16]
SMALL = {
    "training": {"budgets": BUDGETS, "learning_rate": 3e-3, "max_steps": 2, "batch_size": 8},
    "evaluation": {"test_cap": 8},
    "coslow": {"n_examples": 8, "pool_cap": 16, "max_new_tokens": 3, "rank": 2, "quantile": 0.6},
    "curve": {"cap": 16, "ceiling": "human"},
}


def run_python(environment: dict[str, str], *arguments: object) -> str:
    """The output of `python ARGUMENTS` in a process of its own, which must succeed."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(
        command, env={**os.environ, **environment}, cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_all_published_tasks_from_hub_to_calibration(tiny_model, tmp_path):
    family = yaml.safe_load((REPOSITORY / "configs/llama-3.1-8b-instruct.yaml").read_text())
    tasks = family["tasks"]
    assert (len(tasks["calibration"]), len(tasks["held_out"])) == (30, 3)
    values = {
        "name": "all",
        "storage": str(tmp_path / "results"),
        "model": {"path": MODEL, "name": "tiny", "dtype": "float32"},
        "tasks": tasks,
        **SMALL,
        "cluster": {"task_seeds_per_job": 17},
    }
    config = write_config(tmp_path, values)
    root, home = tmp_path / "hub", {"HF_HOME": str(tmp_path / "home")}
    write_hub(root / "datasets", n=40)
    shutil.copytree(tiny_model, root / "models" / MODEL)
    with serve(root) as hub:
        online = {**home, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.endpoint}
        said = run_python(online, "-m", "taskeff.cli", "validate", "-c", config, "--online")
        download = [
            sys.executable,
            "-c",
            f"import huggingface_hub as h; h.snapshot_download({MODEL!r})",
        ]
        subprocess.run(download, env={**os.environ, **online}, check=True, capture_output=True)
    assert "33 tasks and 99 cells are ready to run" in said
    assert said.count("⟦") == said.count("⟧") == 33
    offline = {**home, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    run_python(offline, "-m", "taskeff.cli", "calibrate", "-c", config)
    run = tmp_path / "results" / "all"
    calibration = json.loads((run / "calibration.json").read_text())
    names = {Path(path).stem for path in tasks["calibration"]}
    assert {task["name"] for task in calibration["tasks"]} == names
    assert set(calibration["controls"]) == {
        *("random_cosine", "mean_cosine", "mean_confidence", "gradient_norm"),
        *("zero_shot", "label_zero_shot"),
    }
    held_out = {Path(path).stem for path in tasks["held_out"]}
    rows = pq.read_table(run / "curves.parquet").to_pylist()
    assert {(r["task"], r["budget"]) for r in rows} == {
        (task, budget) for task in names | held_out for budget in (0, *BUDGETS)
    }
    # Scored twice wherever a task lists its labels, which all but those of generation do.
    assert {r["task"] for r in rows if r["label_score"] is None} == held_out
    estimates = pq.read_table(run / "estimates.parquet").to_pylist()
    assert {row["task"] for row in estimates} == held_out
    page = (run / "report.html").read_text()
    assert all(name in page for name in names | held_out)
    record = json.loads((run / "run.json").read_text())
    assert record["ceiling"]["sst2"] == 0.978 and record["ceiling"]["squad"] is None
