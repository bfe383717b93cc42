"""Families of curves: a folder of one's own, the shipped ones of parameters, siblings."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.estimates.unseen import blind, generic_without, siblings_of
from taskeff.errors import EstimateError
from taskeff.estimate.budget import predict
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.folders import fit_parameters, of_parameters
from taskeff.estimate.posterior import Pilot, Score
from taskeff.estimate.sibling import read_sibling
from tests.estimate.conftest import made_up_cases
from tests.helpers import run_cli

PILOT = ("--pilot", "50:0.6:200", "--zero-shot", "0.4:200")
LLAMA = "llama-3.1-8b-instruct"


@pytest.fixture(scope="module")
def families():
    """Two models whose tasks are the same: the second's areas are the first's plus noise."""
    first = made_up_cases(20)
    return {
        "one": {c.curve.name: replace(c, cos_low=None) for c in first},
        "other": {c.curve.name: replace(c, cos_low=None) for c in made_up_cases(20)},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cases):
    path = tmp_path_factory.mktemp("results")
    for case in cases[:12]:
        rows = {str(n): {"accuracy": score} for n, score in case.scores.items()}
        (path / f"{case.curve.name}.json").write_text(json.dumps(rows))
    table = "".join(f"{c.curve.name},{c.cos_low}\n" for c in cases[:10])
    (path / "cos_low.csv").write_text("task,cos_low\n" + table)
    return path


@pytest.fixture
def cli(monkeypatch, capsys):
    return lambda *arguments: run_cli(monkeypatch, capsys, *map(str, arguments))


def test_a_folder_of_curves_becomes_a_family(cli, folder, tmp_path):
    """With CoS-Low and without: both take pilots, the first CoS-Low too."""
    csv = folder / "cos_low.csv"
    for more, fitted in (((), 0), (("--cos-low", csv), 10)):
        file = tmp_path / f"{fitted}.json"
        code, out, _ = cli("curves", "fit", folder, "--name", "mine", "--output", file, *more)
        assert code == 0 and f"12 tasks, {fitted} with a CoS-Low" in out
        code, out, _ = cli("predict", "--family", file, *PILOT, "--json")
        assert code == 0 and json.loads(out)["interval"]
        code, out, _ = cli("predict", "--family", file, "--cos-low", 0.3, *PILOT)
        assert code == 0 and ("CoS-Low is not used" in out) == (fitted == 0)
    family = Calibration.load(str(tmp_path / "0.json"))
    assert family.line is None and family.prior is not None and not family.generic


def test_folders_too_small(cli, folder, tmp_path):
    (tmp_path / "few").mkdir()
    for name in ("t00", "t01"):
        (tmp_path / "few" / f"{name}.json").write_text((folder / f"{name}.json").read_text())
    where = ("--name", "x", "--output", tmp_path / "x.json")
    code, _, err = cli("curves", "fit", tmp_path / "few", *where)
    assert code == 2 and "without CoS-Low it takes 8 tasks" in err
    code, _, err = cli("curves", "fit", tmp_path / "none", *where)
    assert code == 2 and "no such folder" in err


def test_parameters_round_trip(families, tmp_path):
    tasks = {f: {t: c.measured for t, c in cases.items()} for f, cases in families.items()}
    made = of_parameters("both", fit_parameters(tasks, list(tasks)), cap=5000, source="made up")
    made.save(tmp_path / "both.json")
    again = Calibration.load(str(tmp_path / "both.json"))
    assert [p.signals for p in again.priors] == [(), ("sibling_area", "sibling_share")]
    options = {"pilots": (Pilot(50, 0.5, 100),), "zero_shot": Score(0.3, 100)}
    assert predict(again, **options).to_dict() == predict(made, **options).to_dict()
    # Parameters alone: not a task, a score or a curve of theirs.
    text = (tmp_path / "both.json").read_text()
    assert not any(name in text for name in families["one"])


def test_the_generic_family_asks_for_a_pilot_and_says_its_worth(cli):
    code, _, err = cli("predict", "--zero-shot", "0.4:200")
    assert code == 2 and "--pilot 50:SCORE:N_TEST" in err
    code, out, _ = cli("predict", "--scored", "x.json", *PILOT)
    assert code == 2
    code, out, _ = cli("predict", *PILOT)
    assert code == 0 and "models that it had not seen" in out and "% by model)" in out
    code, out, _ = cli("predict", "--cos-low", "0.4", *PILOT)
    assert code == 0 and "CoS-Low is not used" in out
    code, _, err = cli("predict", "--pilot", "50:0.6:200")
    assert code == 2 and "--zero-shot SCORE:N_TEST" in err


@pytest.mark.parametrize("name", [LLAMA, "mistral-7b-instruct-v0.3", "qwen2.5-14b-instruct"])
def test_printed_lines_have_intervals(name):
    family = Calibration.load(name)
    found = predict(family, 0.3)
    assert found.auc == pytest.approx(family.line.auc(0.3), abs=0.04)
    low, high = found.auc_intervals[0.8]
    assert low < found.auc < high and 0.15 < high - low < 0.35
    assert found.intervals[0.8][0] < found.labels_needed
    borrowed = [w for w in found.warnings if "borrowed" in w]
    assert bool(borrowed) == (name != LLAMA)
    # A larger CoS-Low is a larger area also once a pilot stands beside it.
    options = {"pilots": (Pilot(50, 0.5, 50),), "zero_shot": Score(0.4, 50), "ceiling": 0.9}
    assert predict(family, 0.7, **options).auc > predict(family, 0.2, **options).auc
    assert predict(family, **options).cos_low is None


def test_a_sibling_moves_the_answer(families):
    """Its area and share speak for the same on this model, with a family's tasks and without."""
    low, high = sorted(families["one"], key=lambda t: families["one"][t].curve.auc)[::19]
    for task, up in ((low, False), (high, True)):
        known = generic_without({**families, "third": families["one"]}, "third", task)
        case = families["one"][task]
        sibling = siblings_of(families, "other", task)[0]
        found = predict(known, sibling=sibling, zero_shot=case.curve.zero_shot, ceiling=0.9)
        middle = np.median([c.curve.auc for c in families["one"].values()])
        assert (found.auc > middle) == up
        assert blind(known.priors[0])


@pytest.fixture
def sibling_files(cli, folder, tmp_path):
    (tmp_path / "short.json").write_text('{"0": {"accuracy": 0.1}, "100": {"accuracy": 0.5}}')
    imported = tmp_path / "areas.json"
    assert cli("curves", "import", folder, "--output", imported)[0] == 0
    return tmp_path


def test_siblings_on_the_command_line(cli, folder, sibling_files):
    for text in (folder / "t03.json", f"{sibling_files / 'areas.json'}:t03"):
        code, out, err = cli("predict", "--sibling", text, "--json")
        assert code == 0, err
        assert json.loads(out)["sibling"]["task"] == "t03"
        assert json.loads(out)["pilots"] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("short.json", "measured up to 100 labels only"),
        ("none.json", "cannot be read"),
        ("areas.json:t3", "has no task 't3'; did you mean"),
        ("areas.json:t04", "is of task 't04', but the pilots are of 't03'"),
        ("smollm2-135m-instruct:boolean_expressions", "but the pilots are of"),
        (f"{LLAMA}:t03", "keeps no curves of its tasks"),
    ],
)
def test_siblings_that_do_not_fit(cli, sibling_files, text, said):
    pilots = {"schema": 1, "task": "t03", "zero_shot": {"score": 0.3, "n_test": 50}}
    pilots["pilots"] = [{"labels": 50, "score": 0.5, "n_test": 50}]
    file = sibling_files / "pilots.json"
    file.write_text(json.dumps({**pilots, "task": "" if "t3" in text else "t03"}))
    if ".json" in text:
        text = sibling_files / text
    named = "short" in str(text) or "none" in str(text)
    more = () if named else ("--pilots", file)
    code, _, err = cli("predict", "--sibling", text, *more)
    assert code == 2 and said in err and "Traceback" not in err


def test_a_sibling_measured_on_another_grid_is_refused():
    sibling = read_sibling("smollm2-135m-instruct:boolean_expressions", cap=5000)
    with pytest.raises(EstimateError, match="up to 512 labels, family 'generic' up to 5000"):
        predict(Calibration.load("generic"), sibling=sibling)
    smol = Calibration.load("smollm2-135m-instruct")
    alone = replace(sibling, others={})
    with pytest.raises(EstimateError, match="0 of its own tasks are measured there too"):
        predict(smol, sibling=alone)


def test_another_schema_is_refused(tmp_path):
    value = {**Calibration.load("generic").to_dict(), "schema": 2}
    (tmp_path / "f.json").write_text(json.dumps(value))
    with pytest.raises(EstimateError, match=r"f\.json: schema 2, expected 1"):
        Calibration.load(str(tmp_path / "f.json"))
    value = {**value, "schema": 1, "priors": [{"scale": 3}]}
    (tmp_path / "f.json").write_text(json.dumps(value))
    with pytest.raises(EstimateError, match=r"f\.json: unlike a calibration"):
        Calibration.load(str(tmp_path / "f.json"))
