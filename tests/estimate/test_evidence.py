"""What evidence is worth on a family: its own left-out errors, the same as a benchmark's."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.estimates.comparison import compare
from benchmarks.estimates.predictors import Fold
from taskeff.errors import EstimateError
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.evidence import with_evidence
from taskeff.estimate.posterior import Score
from taskeff.estimate.run_tables import first_runs
from taskeff.report.sentences import NBSP, works


def worth(cases, **more):
    curves = {case.curve.name: case.curve for case in cases}
    ceilings = {case.curve.name: case.ceiling for case in cases}
    return with_evidence(Fold(cases).calibration, curves, ceilings, **more)


def of(calibration):
    return {(r["predictor"], tuple(r["pilots"])): r for r in calibration.evidence}


@pytest.fixture(scope="module")
def family(cases):
    return worth(cases[:12])


def test_the_errors_are_the_calibrations_own(family):
    found = of(family)
    assert list(found) == [
        ("mean", ()),
        ("cos_low", ()),
        ("pilots", (50,)),
        ("pilots", (50, 100)),
        ("cos_low", (50,)),
        ("cos_low", (50, 100)),
    ]
    assert found["mean", ()]["auc_mae"] == pytest.approx(family.mean_baseline)
    assert found["cos_low", ()]["auc_mae"] == pytest.approx(family.mae)
    assert all(r["tasks"] == 12 and r["label_coverage"]["80"]["of"] for r in found.values())


def test_the_benchmark_says_the_same(cases, family):
    """Its folds and questions are made apart from a calibration's."""
    records = compare(cases[:12], predictors=("mean", "ours"), pilots=((), (50,)), targets=(0.9,))
    found = of(family)
    for record in records:
        name = {"mean": "mean", "ours": "cos_low"}[record["predictor"]]
        if (name, record["pilots"]) == ("mean", [50]):
            continue
        mine = found[name, tuple(record["pilots"])]
        for key in ("auc_mae", "log2_error_mean", "auc_coverage", "label_coverage"):
            assert mine[key] == record[key], (name, key)


def test_it_is_in_the_file_and_comes_back(family):
    again = Calibration.from_dict(json.loads(json.dumps(family.to_dict())))
    assert again.to_dict() == family.to_dict() and len(again.evidence) == 6


def test_a_record_with_a_hole_is_refused(family):
    value = json.loads(json.dumps(family.to_dict()))
    del value["evidence"][2]["auc_coverage"]
    with pytest.raises(EstimateError, match=r"calibrate again.*evidence\.2\.auc_coverage"):
        Calibration.from_dict(value)


def test_a_family_without_cos_low_has_pilots_left(cases):
    found = of(worth([replace(case, cos_low=None) for case in cases[:12]]))
    assert list(found) == [("mean", ()), ("pilots", (50,)), ("pilots", (50, 100))]


def test_where_cos_low_fails_the_words_say_what_works(cases):
    rng = np.random.default_rng(0)
    family = worth([replace(c, cos_low=float(rng.uniform(0, 0.7))) for c in cases[:12]])
    assert family.mae > family.mean_baseline
    said = works(family).replace(NBSP, " ")
    best = of(family)["pilots", (50, 100)]
    assert "of this family: fine-tunes on 50 and 100 labels, with an error in AUC of" in said
    assert f"{best['auc_mae']:.3f} where the mean of the others has" in said
    assert f"held {best['auc_coverage']['80']['covered']:.0f} of 12 areas" in said


def test_where_nothing_works_that_is_said(family):
    poor = [{**r, "auc_mae": 0.3} for r in family.evidence[1:]]
    said = works(replace(family, evidence=(family.evidence[0], *poor)))
    assert said.startswith("Nothing that was tried (CoS-Low; a fine-tune on 50 labels; ")
    assert "says more of a task of this family than the mean" in said
    assert "not tried" in works(replace(family, evidence=()))


def test_a_small_family_cannot_use_pilots(cases):
    assert list(of(worth(cases[:4]))) == [("mean", ()), ("cos_low", ())]


def test_an_answer_on_one_task_of_nine_is_no_evidence(cases):
    flat = replace(cases[8], rise=None)
    # Only without the flat one do eight curves rise, which a pilot takes.
    assert list(of(worth([*cases[:8], flat]))) == [("mean", ()), ("cos_low", ())]


def test_a_pilot_is_the_first_seeds_run_with_its_test_rows(cases):
    rows = [
        {"task": "a", "budget": n, "seed": seed, "score": score, "n_test": 40, "status": status}
        for n, seed, score, status in (
            (8, 2, 0.9, "measured"),
            (8, 1, 0.5, "measured"),
            (0, 1, 0.2, "measured"),
            (32, 1, 0.7, "imputed"),
        )
    ]
    assert first_runs(rows) == {"a": {8: Score(0.5, 40), 0: Score(0.2, 40)}}
    few, many = (
        worth(
            cases[:10],
            runs={
                c.curve.name: {n: Score(round(s * m) / m, m) for n, s in c.scores.items()}
                for c in cases[:10]
            },
        )
        for m in (20, 20000)
    )
    one, other = (of(found)["pilots", (50,)] for found in (few, many))
    assert one["auc_coverage"]["80"]["width"] > other["auc_coverage"]["80"]["width"]
