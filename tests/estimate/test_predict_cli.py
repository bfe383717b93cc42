"""`taskeff predict` and `taskeff curves show`, at the command line."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from benchmarks.estimates.predictors import Fold
from tests.helpers import run_cli


@pytest.fixture(scope="module")
def family(cases, tmp_path_factory):
    path = tmp_path_factory.mktemp("family") / "calibration.json"
    Fold(cases).calibration.save(path)
    return str(path)


@pytest.fixture
def ask(monkeypatch, capsys, family):
    def ask(*options):
        arguments = ("predict", "--family", family, "--cos-low", "0.3", *options)
        return run_cli(monkeypatch, capsys, *arguments)

    return ask


RANGE = ("--zero-shot", "0.3", "--ceiling", "0.9")
PRICES = ("--price-per-label", "0.5", "--gpu-hour-price", "2", "--hours-per-label", "0.001")


def test_everything_is_in_the_json(ask):
    code, out, _ = ask(*RANGE, *PRICES, "--value", "3000", "--pilot", "50:0.55:1000", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["pilots"] == [{"budget": 50, "score": 0.55, "n_test": 1000}]
    assert set(found["intervals"]) == {"50", "80", "90"} and 0 <= found["reach_probability"] <= 1
    labels = found["cost"]["labels"]
    assert found["labelled"] == 50 and labels == pytest.approx(found["labels_needed"] - 50, abs=1)
    hours = 0.001 * (labels + 50)
    assert found["cost"]["gpu_hours"] == pytest.approx(hours)
    assert found["cost"]["money"] == pytest.approx(0.5 * labels + 2 * hours)
    assert found["advice"]["action"] in ("stop", "label") and found["next_pilot"] > 50
    low, high = found["cost_intervals"]["80"]
    assert low["labels"] <= labels and (high is None or labels <= high["labels"])


def test_the_text_says_the_same(ask):
    code, out, _ = ask(*RANGE, *PRICES, "--value", "3000", "--pilot", "50:0.55")
    assert code == 0
    for said in ("With 80 % certainty it takes", "% of the way from zero-shot", "assumed behind"):
        assert said in out
    for said in ("in money", "GPU-hours", "advice: ", "next pilot: fine-tune on"):
        assert said in out


def test_pilots_from_a_file_are_the_pilots(ask, tmp_path):
    file = tmp_path / "p.csv"
    file.write_text("budget,score\n100,0.6\n50,0.55\n")
    _, one, _ = ask(*RANGE, "--pilots", str(file), "--json")
    _, other, _ = ask(*RANGE, "--pilot", "50:0.55", "--pilot", "100:0.6", "--json")
    one, other = json.loads(one), json.loads(other)
    assert one["labels_needed"] == other["labels_needed"] and one["auc"] == other["auc"]


def test_nothing_is_worth_labelling_for_nothing(ask):
    _, out, _ = ask(*RANGE, "--price-per-label", "1", "--value", "0", "--json")
    assert json.loads(out)["advice"]["action"] == "stop"
    _, out, _ = ask(*RANGE, "--json")
    assert json.loads(out)["advice"] is None and json.loads(out)["advice_reason"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--pilot", "50:1.5", *RANGE), "50:1.5"),
        (("--pilot", "50:0.5"), "--zero-shot SCORE:N_TEST"),
        (("--zero-shot", "0.3:0"), "zero-shot '0.3:0'"),
        (("--pilot", "50:0.5:0", *RANGE), "50:0.5:0"),
        (("--scored", "x.json"), "not both"),
        (("--pilot", "50:0.5", "--pilots", "x.csv", *RANGE), "not by both"),
        (("--pilots", "missing.csv", *RANGE), "missing.csv"),
        (("--value", "-1", *RANGE), "value -1"),
        (("--price-per-label", "-1"), "price label is -1"),
        (("--labelled", "9999"), "labelled 9999"),
        (("--plot", "out.pdf"), "out.pdf"),
        (("--target", "1.5"), "target 1.5"),
    ],
)
def test_bad_options(ask, options, said):
    code, _, err = ask(*options)
    assert code == 2 and said in err and "Traceback" not in err


def test_no_heavy_module_is_loaded(family):
    code = (
        "import sys; from taskeff.cli import app; sys.argv = sys.argv[:1] + sys.argv[2:];"
        "app(standalone_mode=False);"
        "print([m for m in ('torch', 'ray', 'transformers', 'matplotlib') if m in sys.modules])"
    )
    options = ("predict", "--family", family, "--cos-low", "0.3", *RANGE, "--pilot", "50:0.5")
    arguments = [sys.executable, "-c", code, "-", *options, "--value", "100", "--json"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_plots(ask, tmp_path):
    svg, again, png = (tmp_path / name for name in ("a.svg", "b.svg", "c.png"))
    for path in (svg, again, png):
        assert ask(*RANGE, "--pilot", "50:0.55", "--plot", str(path))[0] == 0
    assert svg.read_bytes() == again.read_bytes()
    assert ET.parse(svg).getroot().tag.endswith("svg")
    assert png.read_bytes().startswith(b"\x89PNG")


def test_curves_are_shown(monkeypatch, capsys, tmp_path):
    (tmp_path / "r").mkdir()
    rows = {"0": {"accuracy": 0.1}, "50": {"accuracy": 0.5}, "5000": {"accuracy": 0.9}}
    (tmp_path / "r" / "colours.json").write_text(json.dumps(rows))
    areas = str(tmp_path / "areas.json")
    run_cli(monkeypatch, capsys, "curves", "import", str(tmp_path / "r"), "--output", areas)
    code, out, _ = run_cli(monkeypatch, capsys, "curves", "show", areas)
    assert code == 0 and "colours" in out and "n(90 %)" in out
    _, out, _ = run_cli(monkeypatch, capsys, "curves", "show", areas, "--json")
    assert json.loads(out)["colours"]["labels_90"] > json.loads(out)["colours"]["labels_80"] > 50
    (tmp_path / "areas.json").write_text("{}")
    code, _, err = run_cli(monkeypatch, capsys, "curves", "show", areas)
    assert code == 2 and "areas.json" in err
