"""The figures of evidence beside CoS-Low: nothing leaks, and the committed claims hold."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.estimates.predictors import Fold
from benchmarks.estimates.shown import demo_tasks, replication, simulated
from benchmarks.estimates.unseen import (
    coverage_of,
    first_labels_records,
    generic_records,
    generic_without,
    measured,
    read_families,
)
from benchmarks.families.__main__ import main
from taskeff.errors import DataError
from taskeff.estimate.calibration import Calibration
from tests.estimate.conftest import made_up_cases

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def families():
    return {
        name: {c.curve.name: replace(c, cos_low=None) for c in made_up_cases(10, seed)}
        for seed, name in enumerate(("one", "two", "three"))
    }


def test_the_task_and_the_model_asked_about_are_left_out(families):
    """Changing the family asked about, or the task in any family, changes nothing."""
    changed = {**families, "one": dict(list(families["two"].items())[:9])}
    changed = {f: {**cases, "t03": families["two"]["t05"]} for f, cases in changed.items()}
    one, other = (generic_without(f, "one", "t03") for f in (families, changed))
    assert one.to_dict() == other.to_dict()
    assert generic_without(families, "two", "t03").to_dict() != one.to_dict()
    assert set(measured(families, "t03", "one")) == {"two", "three"}


def test_coverage_is_counted_by_family(families):
    two = {name: dict(list(families[name].items())[:9]) for name in ("one", "two")}
    found = coverage_of(generic_records(two, ("generic",)))
    assert set(found) == {"1", "2", "3", "4"} and set(found["1"]) == {"all", "one", "two"}
    assert all(0 <= share <= 1 for row in found["1"].values() for share in row.values())


def test_the_first_labels_are_spent_in_four_ways(families):
    """CoS-Low takes no test rows; a pilot is drawn on fifty each time."""
    one = {c.curve.name: c for c in made_up_cases(10, 0)}
    found = first_labels_records({**families, "one": one}, "one", repeats=2)
    assert [(r["predictor"], r["pilots"], r["tasks"]) for r in found] == [
        ("100: CoS-Low", [], 10),
        ("100: 50 + 50", [50], 20),
        ("100: both", [50], 20),
        ("100: generic", [50], 20),
    ]
    alone, pilot, both, generic = found
    assert alone["auc_mae"] == pytest.approx(Fold(list(one.values())).calibration.mae)
    assert pilot["auc_mae"] != both["auc_mae"] != generic["auc_mae"]


def test_folders_are_named(tmp_path, monkeypatch, capsys):
    with pytest.raises(DataError, match="NAME=DIR"):
        read_families(["folder"])
    monkeypatch.setattr("sys.argv", ["families", f"x={tmp_path}/none"])
    assert main() == 2 and "no such folder" in capsys.readouterr().err


def test_the_generic_prior_on_the_committed_curves_of_a_small_model():
    """Curves of a model, recipe and cap that no family has seen, pilots at 8 and 32."""
    found = replication(Calibration.load("generic").priors[0])
    assert found["of"] == 60 and found["auc_mae"] <= 0.045 and 0.7 <= found["held"] <= 0.9


def test_the_page_says_what_pilots_of_the_demo_tasks_say():
    page = (ROOT / "docs/training.md").read_text("utf-8")
    assert [row for row in demo_tasks() if row not in page] == []


@pytest.mark.slow
def test_intervals_hold_where_the_model_is_exact():
    found = simulated(Calibration.load("generic").priors[0])
    assert json.loads(json.dumps(found)) == found
    assert 0.78 <= found["area"] <= 0.82 and 0.78 <= found["labels"] <= 0.82
