import csv
import json

import numpy as np
import pytest

from benchmarks.estimates.advice_replay import replay
from benchmarks.estimates.comparison import compare, read_cases
from benchmarks.estimates.predictors import PREDICTORS, Case, Fold, Question
from taskeff.errors import DataError, EstimateError
from taskeff.estimate.beta_curve import fit_rise
from taskeff.estimate.posterior import Pilot, Score
from taskeff.estimate.prior import fit_prior
from taskeff.estimate.shapes import Beta
from tests.estimate.reference import REFERENCE, needs_reference


def test_records_are_json_and_count_every_task(cases):
    records = compare(cases[:10], pilots=((), (50, 100)), targets=(0.9,))
    assert json.loads(json.dumps(records)) == records
    assert {r["predictor"] for r in records} == set(PREDICTORS)
    for record in records:
        assert record["scored"] + record["never_reached"] + record["reached_by_pilot"] == 10


def test_a_task_is_not_in_its_own_fold(cases):
    """Changing one task's larger budgets changes nothing of what is said about it."""
    target = cases[0]
    question = Question(target.cos_low, Score(0.3), 0.9, (Pilot(50, 0.5),), 0.9)
    changed = Case(cases[1].curve, target.scores, target.cos_low, 0.9, target.rise)
    for name, fit in PREDICTORS.items():
        one = fit(Fold([c for c in [target, *cases[1:10]] if c is not target]))(question)
        other = fit(Fold([c for c in [changed, *cases[1:10]] if c is not changed]))(question)
        assert one == other, name


@pytest.mark.parametrize("name", ["power_fit", "inverse_power_law"])
def test_one_parameter_fits_pass_through_their_own_curves(cases, name):
    fold = Fold(cases[:10])
    y = (0.3, 0.45)
    x = [0.459, 0.5407]  # 50 and 100 labels of 5000
    exponent = 2.0
    if name == "power_fit":
        y = tuple(0.1 + 0.8 * v**exponent for v in x)
        expected = 5000 ** (0.9 ** (1 / exponent))
    else:
        y = tuple(0.1 + 0.8 * (1 - (1 + n) ** -0.3) for n in (50, 100))
        expected = 0.1 ** (-1 / 0.3) - 1
    pilots = (Pilot(50, y[0]), Pilot(100, y[1]))
    found = PREDICTORS[name](fold)(Question(0.3, Score(0.1), 0.9, pilots, 0.9))
    assert found.labels == pytest.approx(expected, rel=0.01)


def test_replayed_advice_never_beats_the_oracle(cases):
    rows = replay(cases[:9], values=(2000.0,))
    assert rows[0]["policy"] >= rows[0]["oracle"] > 0
    assert rows[0]["regret"] == pytest.approx(rows[0]["policy"] / rows[0]["oracle"] - 1)
    assert rows[0]["fixed_regret"] >= 0
    with pytest.raises(EstimateError, match="too few"):
        replay(cases[:5])


def test_priors_need_eight_tasks(cases):
    rises = [case.rise for case in cases[:7]]
    with pytest.raises(EstimateError, match="7 calibration tasks"):
        fit_prior(rises, {"cos_low": [case.cos_low for case in cases[:7]]}, Beta(3.0))


def test_a_flat_curve_has_no_rise():
    from taskeff.curves.curve import data_efficiency

    assert fit_rise(data_efficiency({0: 0.5, 50: 0.4}, cap=100, ceiling=1.0)) is None


def test_bad_inputs_name_file_and_line(tmp_path):
    (tmp_path / "r").mkdir()
    for name in "ab":
        rows = {"0": {"accuracy": 0.1}, "50": {"accuracy": 0.5}}
        (tmp_path / "r" / f"{name}.json").write_text(json.dumps(rows))
    table = tmp_path / "c.csv"
    table.write_text("task,cos_low\na,0.1\nb,x\n")
    with pytest.raises(DataError, match=r"c\.csv, line 3"):
        read_cases(tmp_path / "r", None, table)
    table.write_text("task,cos_low\na,0.1\nb,0.2\n")
    with pytest.raises(DataError, match="only 2"):
        read_cases(tmp_path / "r", None, table)
    with pytest.raises(DataError, match="cannot be read"):
        read_cases(tmp_path / "r", None, tmp_path / "none.csv")


@pytest.mark.slow
@needs_reference
def test_measured_curves_leave_one_out():
    """The figures docs/estimates.md claims, as bounds."""
    cases = read_cases(
        REFERENCE / "llama_finetune_results",
        REFERENCE / "ceilings.json",
        REFERENCE / "llama_coslow_auc_digitised.csv",
    )
    pilots = ((), (50,), (50, 100), (50, 100, 200), (50, 100, 200, 500), (500,))
    simple = ("power_fit", "inverse_power_law")
    found = {
        (r["predictor"], tuple(r["pilots"]), r["target"]): r
        for r in compare(cases, predictors=("published", "ours", *simple), pilots=pilots)
    }
    alone = found["ours", (), 0.9]
    assert alone["auc_mae"] <= 0.079
    assert alone["log2_error_mean"] <= 1.05 < found["published", (), 0.9]["log2_error_mean"]
    assert alone["within_2x"] >= 0.6
    for budgets, bound in zip(pilots[1:5], (0.060, 0.050, 0.042, 0.030)):
        assert found["ours", budgets, 0.9]["auc_mae"] <= bound
        for target in (0.8, 0.9, 0.95):
            ours = found["ours", budgets, target]
            others = [found[name, budgets, target] for name in simple]
            for column in ("log2_error_mean", "log2_error_median"):
                assert ours[column] <= min(other[column] for other in others)
            assert ours["within_2x"] >= max(other["within_2x"] for other in others)
    for budgets in pilots[:5]:
        assert 19 <= found["ours", budgets, 0.9]["auc_coverage"]["80"]["covered"] <= 28
        assert 23 <= found["ours", budgets, 0.9]["auc_coverage"]["90"]["covered"] <= 30
    assert found["ours", (500,), 0.9]["reach_auroc"] >= 0.8
    advice = replay(cases)
    regret, fixed = (np.mean([row[k] for row in advice]) for k in ("regret", "fixed_regret"))
    print([round(row["regret"], 3) for row in advice], regret, fixed)
    assert regret <= 0.14 < fixed
    assert len(list(csv.DictReader((REFERENCE / "llama_coslow_auc_digitised.csv").open()))) == 30
