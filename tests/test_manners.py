"""What a terminal shows: our lines only, each verb ending with what to do next; version, families,
completion."""

import json
import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from taskeff.cli.signal import score_lines
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.family_files import bundled_families
from taskeff.tasks.account import NO_GRADIENT, Account
from tests.helpers import TASKS, run_cli, run_values, write_config

QUICK = ("--budgets", "8", "training.max_steps=2", "training.batch_size=4", "evaluation.test_cap=8")


@pytest.fixture
def cli(monkeypatch, capsys):
    return lambda *arguments: run_cli(monkeypatch, capsys, *arguments)


def test_the_version_is_the_packages(cli):
    code, out, _ = cli("--version")
    assert (code, out) == (0, f"taskeff {version('taskeff')}\n")


def test_every_bundled_family_is_told(cli):
    code, out, _ = cli("families")
    found = json.loads(cli("families", "--json")[1])
    assert code == 0 and [one["name"] for one in found] == list(bundled_families())
    for one in found:
        family = Calibration.load(one["name"])
        assert one["caveat"] == family.caveat and one["cap"] == family.cap
        assert f"{one['name']}: " in out and (one["evidence"] or "") in out
    assert "next: taskeff select --family NAME" in out.splitlines()[-1]


@pytest.mark.parametrize(("typed", "offered"), [("fam", "families"), ("pil", "pilot")])
def test_a_shell_completes_verbs(typed, offered):
    asked = {"_TASKEFF_COMPLETE": "complete_bash", "COMP_WORDS": f"taskeff {typed}"}
    code = "import sys; sys.argv = ['taskeff']; from taskeff.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **asked, "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [offered], done.stderr


@pytest.mark.slow
def test_no_line_is_a_librarys(tiny_model, tmp_path):
    """A fine-tune by the published recipe, of whose checkpointing transformers warns."""
    command = [sys.executable, "-m", "taskeff.cli", "pilot", "--model", str(tiny_model), *QUICK]
    command += ["--task", TASKS[0], "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.splitlines()[-1].strip().startswith("taskeff predict ")


def test_quiet_leaves_results(cli, tiny_model, tmp_path):
    options = ("--model", tiny_model, "--task", TASKS[0], "--out", tmp_path, *QUICK)
    code, out, err = cli("pilot", *options, "--quiet")
    assert code == 0 and not err
    assert [line.split(":")[0].strip() for line in out.splitlines()] == ["0 labels", "8 labels"]


def test_validate_and_plan_say_what_comes_next(cli, tiny_model, tmp_path):
    config = write_config(tmp_path, run_values(tiny_model, tmp_path / "results"))
    for verb, after in (("validate", "plan"), ("plan", "calibrate")):
        code, out, _ = cli(verb, "-c", config, "curve.cap=64")
        assert code == 0
        assert out.splitlines()[-1] == f"next: taskeff {after} -c {config} curve.cap=64"


def test_a_score_in_sentences():
    found = {
        "task": "mine",
        "cos_low": 0.5,
        "cos_low_low": 0.4,
        "cos_low_high": 0.6,
        "level": 0.8,
        "n_examples": 31,
        "mean_cosine": 0.45,
        "balanced_cosine": None,
        "excluded": ["row-3"],
        "duplicates": [["row-0", "row-9"]],
        "labels_seen": 1,
        "rows": Account(32, {NO_GRADIENT: 1}).to_dict(),
    }
    first, *said = score_lines(found)
    assert first == "labels: 32 rows, 31 used; left out: 1 without a gradient"
    assert said[0].startswith("CoS-Low of mine: 0.500 [0.40, 0.60] (80%), the median cosine")
    assert "31 examples" in said[0] and "weighted" not in said[0]
    assert "row-3" in said[1] and "row-0 and row-9" in said[2] and "one and the same" in said[3]
