"""The replication's arithmetic, on measurements made up so that the answers are known."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks.replication.collect import collect
from benchmarks.replication.figures import draw
from benchmarks.replication.ship import calibrated
from benchmarks.replication.tables import Setup, areas, number, results
from benchmarks.replication.targets import TaskScores, read_measurements
from benchmarks.replication.worth import Row, partial, spearman, verdict, worth
from taskeff.config_file import load_config, parse_config
from taskeff.errors import EstimateError
from taskeff.estimate.budget import predict
from taskeff.estimate.calibration import Calibration
from taskeff.models import load_model
from taskeff.run.archive import import_results
from taskeff.run.plan import make_plan
from tests.helpers import TASKS, run_values

DOCS = Path("docs/replication")
CONFIG = "configs/smollm2-135m-instruct.yaml"
SETUP = Setup(cap=32, budgets=(8, 32), seeds=(0, 1))
SIGNAL = {
    "is_open": 0.0,
    "n_labels": 2.0,
    "chance": 0.5,
    "ngram_accuracy": 0.8,
    "cos_low": 0.5,
    "cos_low_low": 0.4,
    "cos_low_high": 0.6,
}


def task(strict, label=None, **signal):
    return TaskScores("t", strict, label or strict, {**SIGNAL, **signal})


def test_scores_and_ceilings_of_the_plan():
    """x is 0, log2 8 / log2 32 = .6 and 1: the area of (0, a, b) is .5 a + .2 b."""
    found = task({(0, 0): 0.0, (8, 0): 0.6, (32, 0): 0.7}, {(0, 0): 0.4, (8, 0): 0.6, (32, 0): 0.7})

    def area(kind, ceiling):
        return found.curve(kind, ceiling, 32, [0]).auc

    assert area("strict", "one") == pytest.approx(0.5 * 0.6 + 0.2 * 0.7)
    assert area("strict", "best") == pytest.approx(0.5 * 0.6 / 0.7 + 0.2)
    assert area("strict", "reachable") == pytest.approx((0.5 * 0.6 + 0.2 * 0.7) / 0.8)
    assert area("strict", "chance") == pytest.approx((0.5 * 0.1 + 0.2 * 0.2) / 0.5)
    assert area("corrected", "one") == area("label", "one")
    assert area("label", "one") == pytest.approx((0.5 * 0.2 + 0.2 * 0.3) / 0.6)


def test_the_reachable_ceiling_is_outgrown_and_an_open_task_has_none():
    scores = {(0, 0): 0.0, (8, 0): 0.6, (32, 0): 0.9}
    assert task(scores).curve("strict", "reachable", 32, [0]).ceiling == 0.9
    opened = task(scores, ngram_accuracy=None, is_open=1.0)
    assert opened.curve("strict", "reachable", 32, [0]).ceiling == 1.0


def test_seeds_that_do_not_reach_the_cap_are_left_out():
    half = task({(0, 0): 0.0, (8, 0): 0.5, (32, 0): 0.5, (8, 1): 1.0})
    assert half.seeds(32) == [0]
    assert areas([half], SETUP, "strict", "one") == areas([half], SETUP, "strict", "one", seed=0)
    assert areas([half], SETUP, "strict", "one", seed=1) == [None]
    both = task({(0, 0): 0.0, (8, 0): 0.5, (32, 0): 0.5, (8, 1): 1.0, (32, 1): 1.0})
    assert areas([both], SETUP, "strict", "one") == [pytest.approx(0.7 * 0.75)]
    assert areas([task({(8, 0): 0.5, (32, 0): 1.0})], SETUP, "strict", "one") == [None]
    assert areas([task({(0, 0): 1.0, (8, 0): 1.0, (32, 0): 1.0})], SETUP, "strict", "one") == [None]


def test_collecting_a_run(local_run, tiny_model, tmp_path):
    """The study repeats the run's CoS-Low, is not made twice, and travels with the archive."""
    storage, out = tmp_path / "storage", tmp_path / "out"
    shutil.copytree(local_run, storage)
    plan = make_plan(parse_config(run_values(tiny_model, storage), "test"))
    model = load_model(plan.config.model, "cpu")
    collect(plan, out, model)
    rows = {row["task"]: row for row in _read(out / "signals.csv")}
    assert sorted(rows) == sorted(TASKS)
    for row in rows.values():
        assert float(row["low_median"]) == pytest.approx(float(row["cos_low"]), abs=1e-5)
        assert float(row["random_median"]) == pytest.approx(float(row["random_cosine"]), abs=1e-5)
        assert row["warm_median"] not in ("", row["low_median"])
        assert float(row["a_sd_median"]) > 0
        assert 1 / float(row["n_labels"]) <= float(row["commonest_label"]) <= 1
    scores = _read(out / "scores.csv")
    assert len(scores) == 9
    tasks = read_measurements(out)
    assert all(task.seeds(32) == [0] for task in tasks)
    elsewhere = make_plan(parse_config(run_values(tiny_model, tmp_path / "new"), "test"))
    import_results(elsewhere, (out / "cells.jsonl").read_bytes(), "cells.jsonl")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    collect(elsewhere, out, None)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def _read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rank_and_partial_correlation():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, (2, 20)).astype(float)
    given = rng.standard_normal(20)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    r = np.corrcoef([x, y, given])
    expected = (r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2))
    assert partial(x, y, given) == pytest.approx(expected)


def test_worth_is_over_the_tasks_that_have_both():
    row = worth("x", [1, 2, None, 3, 4, 5], [0.1, 0.2, 0.9, None, 0.4, 0.5])
    assert row.n == 4
    assert row.r == pytest.approx(1.0)
    assert row.mae < row.mean_mae
    assert worth("x", [1, 2, 3], [0.1, 0.2, 0.3]) is None


@pytest.mark.parametrize(
    ("low", "mae", "control", "expected"),
    [
        (0.1, 0.05, 0.08, "replicates"),
        (-0.1, 0.05, 0.08, "replicates in part"),
        (0.1, 0.05, 0.04, "replicates in part"),
        (-0.1, 0.2, 0.3, "does not replicate"),
    ],
)
def test_the_verdict_is_the_plans(low, mae, control, expected):
    def row(name, mae):
        return Row(name, 9, 0.5, (low, 0.9), 0.5, None, mae, 0.1)

    assert verdict(row("CoS-Low", mae), row("random", control)) == expected


def test_numbers_as_the_tables_write_them():
    assert [number(v) for v in (0.5, -0.25, 1.0, None, float("nan"))] == [
        ".50",
        "-.25",
        "1.00",
        "-",
        "-",
    ]
    assert number(0.5, sign=True) == "+.50"


@pytest.fixture
def folder(tmp_path):
    """The two CSV files of six tasks, the last one not measured."""
    write_measurements(tmp_path, 6, unmeasured=(5,))
    return tmp_path


def write_measurements(folder, n_tasks, unmeasured=()):
    """CSV files of tasks whose AUC rises with CoS-Low, at two seeds."""
    rng = np.random.default_rng(0)
    signals, scores = [], []
    for index in range(n_tasks):
        name = f"task{index}"
        columns = [c for c in _columns() if c not in SIGNAL]
        signal = {**SIGNAL, **{c: round(float(rng.uniform()), 3) for c in columns}}
        signal |= {"task": name, "cos_low": 0.5 * index / n_tasks, "n_labels": index + 2}
        if index in unmeasured:
            signal |= {c: "" for c in signal if c not in (*SIGNAL, "task") or c == "cos_low"}
        signals.append(signal)
        cells = [] if index in unmeasured else [(0, 0), (8, 0), (32, 0), (8, 1), (32, 1)]
        for budget, seed in cells:
            rise = 0.2 + 0.5 * index / n_tasks + 0.01 * seed + 0.002 * budget
            score = rise if budget else 0.0
            row = {"task": name, "budget": budget, "seed": seed, "score": score}
            scores.append({**row, "label_score": ""})
    for name, rows in (("signals", signals), ("scores", scores)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def _columns():
    groups = ("low", "random", "high", "warm", "a_sd", "draw_sd")
    statistics = ("median", "mean", "balanced")
    names = [f"{group}_{statistic}" for group in groups for statistic in statistics]
    extra = ["mean_cosine", "random_cosine", "mean_confidence", "gradient_norm"]
    return [*names, *extra, "commonest_label"]


def test_the_page_says_what_is_not_measured(folder, monkeypatch):
    monkeypatch.setattr("benchmarks.replication.worth.DRAWS", 50)
    tasks = read_measurements(folder)
    text = results(tasks, SETUP)
    assert "**Interim**" in text and "replicates" not in text
    assert "task5" in text and "no: not started" in text
    assert "| CoS-Low | 5 | +1.00" in text
    finished = results(tasks[:5], SETUP)
    assert "**Finished**" in finished and "**replicates**" in finished


def test_figures_are_the_same_bytes_again(folder):
    tasks = read_measurements(folder)
    shown = draw(tasks, SETUP, folder)
    assert f"({folder.name}/scatter.svg)" in shown and f"({folder.name}/curves.svg)" in shown
    first = [(folder / f"{name}.svg").read_bytes() for name in ("scatter", "curves")]
    draw(tasks, SETUP, folder)
    assert first == [(folder / f"{name}.svg").read_bytes() for name in ("scatter", "curves")]
    assert b"task4" in first[0]


def test_the_page_is_what_the_committed_measurements_give():
    config = load_config(CONFIG)
    setup = Setup(config.cap, config.training.budgets, config.training.seeds)
    text = results(read_measurements(DOCS), setup)
    assert text in Path("docs/replication.md").read_text(encoding="utf-8")


def leaves(value, path=()):
    """Every value of nested JSON under its path."""
    if not isinstance(value, dict | list):
        yield path, value
        return
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield from leaves(item, (*path, key))


def test_what_is_shipped_is_what_the_committed_measurements_give():
    """A family once enough is measured, and until then a refusal that says what is missing."""
    config = load_config(CONFIG)
    tasks = read_measurements(DOCS)
    shipped = Path(f"taskeff/estimate/families/{config.model.name}.json")
    if shipped.exists():
        found = calibrated(tasks, config, DOCS)
        ours = dict(leaves(json.loads(json.dumps(found.to_dict()))))
        theirs = dict(leaves(json.loads(shipped.read_text(encoding="utf-8"))))
        # Processors differ in the last digits of a product, least squares in a few more.
        numbers = {path for path, value in theirs.items() if isinstance(value, float)}
        assert {k: ours[k] for k in numbers} == pytest.approx({k: theirs[k] for k in numbers}, 1e-6)
        assert ours.keys() == theirs.keys()
        assert all(ours[path] == theirs[path] for path in theirs.keys() - numbers)
    else:
        with pytest.raises(EstimateError, match="the plan ships from 12 on"):
            calibrated(tasks, config, DOCS)


def test_a_shipped_family_is_loaded_by_name_and_says_what_it_is_worth(tmp_path, monkeypatch):
    write_measurements(tmp_path, 13, unmeasured=(12,))
    (tmp_path / "fingerprint.json").write_text('{"model": "m", "quantile": 0.1}')
    config = load_config(CONFIG, ["training.budgets=[8,32]", "curve.cap=32", "model.name=made-up"])
    found = calibrated(read_measurements(tmp_path), config, tmp_path)
    found.save(tmp_path / "made-up.json")
    monkeypatch.setattr(
        "taskeff.estimate.family_files.bundled_families",
        lambda: {"made-up": tmp_path / "made-up.json"},
    )
    family = Calibration.load("made-up")
    assert family.to_dict() == found.to_dict()
    assert "interim: this family rests on 12 tasks of 13 with 2 of 3 subset seeds" in family.caveat
    estimate = predict(family, 0.4, target=0.8, fingerprint={"model": "m", "quantile": 0.1})
    assert family.caveat in estimate.warnings
    low, high = estimate.auc_intervals[0.8]
    assert low < estimate.auc < high
    with pytest.raises(EstimateError, match="quantile"):
        predict(family, 0.4, fingerprint={"model": "m", "quantile": 0.2})
    with pytest.raises(EstimateError, match="bundled family \\(made-up\\)"):
        Calibration.load("no-such-family")


def test_the_committed_archive_holds_the_committed_scores():
    records = [json.loads(x) for x in (DOCS / "cells.jsonl").read_text().splitlines()]
    archived = {
        (r["task"], r["budget"], r["seed"]): r["result"]["score"]
        for r in records
        if r["kind"] == "cell"
    }
    assert archived == {
        (row["task"], int(row["budget"]), int(row["seed"])): pytest.approx(float(row["score"]))
        for row in _read(DOCS / "scores.csv")
    }
