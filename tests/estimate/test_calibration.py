import csv
import json

import numpy as np
import pytest
from scipy import optimize, stats

from benchmarks.estimates.predictors import Fold
from taskeff.errors import EstimateError, StorageError
from taskeff.estimate.calibration import Calibration, TaskPoint, fit_calibration
from taskeff.estimate.fingerprint import compare_fingerprints
from taskeff.estimate.regression import dfbetas, fit_line, jackknife_plus, leave_one_out
from taskeff.estimate.shapes import Power
from taskeff.storage import Store
from tests.estimate.reference import REFERENCE, needs_reference
from tests.helpers import run_python


def points(n=12, seed=0, slope=0.5):
    rng = np.random.default_rng(seed)
    cos_low = rng.uniform(0, 0.6, n)
    auc = np.clip(0.3 + slope * cos_low + 0.05 * rng.standard_normal(n), 0.01, 0.99)
    return [
        TaskPoint(f"t{i:02}", float(a), float(c), controls={"noise": float(rng.standard_normal())})
        for i, (a, c) in enumerate(zip(auc, cos_low))
    ]


def fit(tasks, **options):
    settings = {"curve": Power(), "cap": 5000, "family": "fam", "fingerprint": {"model": "m"}}
    return fit_calibration(tasks, **{**settings, **options})


def test_ols_is_ordinary_least_squares():
    tasks = points()
    found = fit(tasks, kind="ols").line
    expected = stats.linregress([t.cos_low for t in tasks], [t.auc for t in tasks])
    assert found.slope == pytest.approx(expected.slope)
    assert found.intercept == pytest.approx(expected.intercept)


def test_fractional_is_the_maximum_of_the_quasi_likelihood():
    tasks = points()
    x, auc = (np.array([getattr(t, name) for t in tasks]) for name in ("cos_low", "auc"))

    def loss(weights):
        linear = weights[0] + weights[1] * x
        return np.sum(np.logaddexp(0, linear) - auc * linear)

    found = fit(tasks).line
    expected = optimize.minimize(loss, [0.0, 0.0], tol=1e-12).x
    assert (found.intercept, found.slope) == pytest.approx(expected, abs=1e-4)
    missed = auc - [found.auc(value) for value in x]
    assert missed.sum() == pytest.approx(0, abs=1e-9)  # right on average


def test_an_area_of_nothing_counts_as_what_it_is():
    x, auc = np.linspace(0.1, 0.9, 9), np.full(9, 0.3)
    auc[4] = 0.0
    moved = {kind: 0.3 - fit_line(kind, x, auc).auc(0.5) for kind in ("fractional", "logit", "ols")}
    assert moved["fractional"] == pytest.approx(moved["ols"], abs=1e-3)
    assert moved["logit"] > 2 * moved["ols"]


@pytest.mark.parametrize("kind", ["ols", "logit", "fractional"])
def test_a_quantity_that_varies_by_rounding_is_flat(kind):
    x = np.array([0.7, 0.1 + 0.6, 0.7 - 2e-16, 0.8 - 0.1])
    assert np.ptp(x) > 0
    found = fit_line(kind, x, np.array([0.2, 0.3, 0.4, 0.6]))
    assert found.slope == 0
    assert found.auc(0.7) == pytest.approx(0.375, abs=0.02)


@pytest.mark.parametrize(
    ("x", "auc"),
    [
        ((0.1, 0.2), (0, 1)),
        ((0.1, 0.2, 0.3), (0, 0, 1)),
        ((0.1, 0.2), (0, 0)),
        ((0.1, 0.1), (0, 1)),
    ],
)
def test_areas_at_the_ends_give_a_finite_line(x, auc):
    found = fit_line("fractional", np.array(x), np.array(auc, dtype=float))
    assert np.isfinite([found.slope, found.intercept]).all()
    assert all(0 < found.auc(value) < 1 for value in x)


def test_left_out_errors_by_brute_force():
    tasks = points()
    found = fit(tasks)
    errors, baseline = [], []
    for task in tasks:
        others = [t for t in tasks if t is not task]
        errors.append(abs(fit(others).predict_auc(task.cos_low).auc - task.auc))
        baseline.append(abs(np.mean([t.auc for t in others]) - task.auc))
    assert found.mae == pytest.approx(np.mean(errors))
    assert found.mean_baseline == pytest.approx(np.mean(baseline))
    assert found.controls["noise"].mae > found.mae
    low, high = found.cos_low.r_interval
    assert low < found.cos_low.r < high


def test_order_of_tasks_does_not_matter():
    tasks = points()
    assert fit(tasks).to_dict() == fit(tasks[::-1]).to_dict()


def test_short_tasks_are_listed_but_not_fitted():
    tasks = [*points(), TaskPoint("short", 0.9, 0.0, "short")]
    assert fit(tasks).line == fit(tasks[:-1]).line
    assert fit(tasks).to_dict()["tasks"][0]["loo_auc"] is None


@pytest.mark.parametrize("kind", ["ols", "logit", "fractional"])
def test_jackknife_plus_covers_what_it_says(kind):
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        x = rng.uniform(0, 1, 25)
        auc = 1 / (1 + np.exp(1 - x - 0.6 * rng.standard_normal(25)))
        lines = leave_one_out(kind, x[:-1], auc[:-1])
        low, high = jackknife_plus(lines, x[:-1], auc[:-1], float(x[-1]), 0.8)
        hits += low <= auc[-1] <= high
    assert 400 * 0.74 <= hits <= 400 * 0.86


def test_high_levels_on_few_tasks_are_everything():
    tasks = points(5)
    assert fit(tasks).predict_auc(0.3).interval[0.9] == (0.0, 1.0)


def test_warnings_name_their_cause():
    few = fit(points(5)).predict_auc(0.3).warnings
    assert any("5 tasks" in warning for warning in few)
    outside = fit(points(12)).predict_auc(0.95).warnings
    assert any("outside the calibrated range" in warning for warning in outside)
    lever = [*points(12, slope=0.0), TaskPoint("lever", 0.95, 1.0)]
    assert any("lever" in warning for warning in fit(lever).warnings)
    useless = fit(points(12, slope=0.0, seed=3)).warnings
    assert any("no better than the mean" in warning for warning in useless)
    assert fit(points(30)).predict_auc(0.3).warnings == ()


def test_dfbetas_by_leaving_out():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 10))
    for i, found in enumerate(dfbetas(x, y)):
        keep = np.arange(10) != i
        rest = stats.linregress(x[keep], y[keep])
        errors = y[keep] - rest.intercept - rest.slope * x[keep]
        scale = np.sqrt(errors @ errors / 7 / ((x - x.mean()) ** 2).sum())
        assert found == pytest.approx((stats.linregress(x, y).slope - rest.slope) / scale)


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ([TaskPoint("a", 0.5, 0.2)], "cannot fit"),
        ([], "cannot fit"),
        ([TaskPoint("a", 0.5, 0.2), TaskPoint("a", 0.6, 0.3)], "'a' is given twice"),
        ([TaskPoint("a", 1.5, 0.2), TaskPoint("b", 0.6, 0.3)], "'a': the AUC"),
        ([TaskPoint("a", 0.5, float("nan")), TaskPoint("b", 0.6, 0.3)], "'a': CoS-Low"),
        (
            [TaskPoint("a", 0.5, 0.1, controls={"z": float("inf")}), TaskPoint("b", 0.6, 0.3)],
            "control 'z'",
        ),
    ],
)
def test_bad_tasks_are_named(tasks, said):
    with pytest.raises(EstimateError, match=said):
        fit(tasks)


@pytest.mark.parametrize("value", [1.2, -2.0, float("nan")])
def test_impossible_cos_low(value):
    with pytest.raises(EstimateError, match="not in"):
        fit(points()).predict_auc(value)


def test_a_line_that_leaves_the_unit_interval_is_an_error_not_a_number():
    steep = fit([TaskPoint("a", 0.1, 0.0), TaskPoint("b", 0.9, 0.4)], kind="ols")
    with pytest.raises(EstimateError, match=r"CoS-Low 0\.9.*'fam'"):
        steep.predict_auc(0.9)
    logit = fit([TaskPoint("a", 0.1, 0.0), TaskPoint("b", 0.9, 0.4)])
    assert 0 < logit.predict_auc(0.9).auc < 1


def test_files_round_trip_byte_for_byte(tmp_path, cases):
    calibration = Fold(cases).calibration
    calibration.save(tmp_path / "one.json")
    again = Calibration.load(tmp_path / "one.json")
    again.save(tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert again.predict_auc(0.3) == calibration.predict_auc(0.3)
    again.save(Store(str(tmp_path)))
    assert Calibration.load(str(tmp_path)).line == calibration.line
    text = (tmp_path / "one.json").read_text()
    assert str(tmp_path) not in text
    assert {"schema", "family", "fingerprint", "cap", "curve", "fit", "loo", "controls"} < set(
        json.loads(text)
    )


def test_loading_what_is_not_a_calibration(tmp_path):
    with pytest.raises(EstimateError, match=r"llama-3\.1-8b-instruct"):
        Calibration.load("no-such-family")
    (tmp_path / "x.json").write_text('{"schema": 99}')
    with pytest.raises(EstimateError, match="schema 99"):
        Calibration.load(tmp_path / "x.json")
    for content in ('{"schema": 1}', "[]", '{"schema": 1, "fit": {"kind": 3}}'):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(EstimateError, match="unlike a calibration"):
            Calibration.load(tmp_path / "x.json")
    (tmp_path / "x.json").write_text('{"schema": 1}')
    with pytest.raises(EstimateError, match="calibrate again"):
        Calibration.load(tmp_path / "x.json")
    with pytest.raises(StorageError):
        Calibration.load(tmp_path / "missing.json")


def test_published_family():
    llama = Calibration.load("llama-3.1-8b-instruct")
    assert llama.predict_auc(0.65).auc == pytest.approx(0.545 * 0.65 + 0.31)
    estimate = llama.predict_auc(0.65)
    assert estimate.interval is None and "residuals" in estimate.interval_reason
    found = llama.to_dict()
    assert found["loo"]["residuals"] is None and found["loo"]["mae"] == 0.086
    assert "2512.24991" in found["source"]


@needs_reference
def test_the_digitised_points_give_their_own_line_not_the_printed_one():
    with (REFERENCE / "llama_coslow_auc_digitised.csv").open() as file:
        rows = list(csv.DictReader(file))
    tasks = [TaskPoint(r["task"], float(r["auc"]), float(r["cos_low"])) for r in rows]
    found = fit(tasks, kind="ols")
    assert found.line.slope == pytest.approx(0.628, abs=1e-3)
    assert found.line.intercept == pytest.approx(0.293, abs=1e-3)
    assert found.cos_low.r == pytest.approx(0.71, abs=0.005)
    assert fit(tasks).mae <= 0.079
    assert found.mean_baseline == pytest.approx(0.128, abs=5e-4)


@pytest.mark.parametrize(
    "field",
    ["model", "revision", "template_hash", "lora_rank", "lora_targets", "n_examples", "quantile"],
)
def test_fingerprints_refuse_by_field(field):
    with pytest.raises(EstimateError, match=field):
        compare_fingerprints({field: 1}, {field: 2}, "fam")


def test_fingerprints_warn_and_forgive():
    assert "unverified" in compare_fingerprints({"model": "m"}, None, "fam")[0]
    assert "dtype" in compare_fingerprints({"dtype": "a"}, {"dtype": "b"}, "fam")[0]
    assert "quantile" in compare_fingerprints({}, {"quantile": 0.1}, "fam")[0]
    assert compare_fingerprints({}, {"strategy": "low", "confidence_repeats": 1}, "fam") == []
    with pytest.raises(EstimateError, match="strategy 'random'"):
        compare_fingerprints({}, {"strategy": "random"}, "fam")
    same = {"lora_targets": ["q", "k"], "dtype": "a"}
    assert compare_fingerprints(same, {"lora_targets": ("k", "q"), "dtype": "a"}, "fam") == []


def test_import_brings_no_heavy_module():
    code = (
        "import sys, taskeff.estimate.budget as b, taskeff.estimate.calibration as c;"
        "b.predict(c.Calibration.load('llama-3.1-8b-instruct'), 0.65, curve='power');"
        "print([m for m in ('torch', 'ray', 'transformers', 'matplotlib', 'scipy', 'pyarrow')"
        " if m in sys.modules])"
    )
    done = run_python(code)
    assert done.stdout.strip() == "[]"
