"""The package as a notebook uses it: plain values in, the command line's numbers out."""

from __future__ import annotations

import json

import pytest

import taskeff
from tests.distributed import candidates as made
from tests.helpers import run_cli, run_python

PILOT = ("--pilot", "50:0.61:200", "--zero-shot", "0.42:200", "--ceiling", "0.95")
LLAMA = "llama-3.1-8b-instruct"
ASKED = {
    "a pilot": (PILOT, {"pilots": [(50, 0.61, 200)], "zero_shot": (0.42, 200), "ceiling": 0.95}),
    "CoS-Low": (
        ("--family", LLAMA, "--cos-low", "0.65", "--target", "0.8"),
        {"family": LLAMA, "cos_low": 0.65, "target": 0.8},
    ),
    "the formula": (
        ("--family", LLAMA, "--cos-low", "0.65", "--curve", "power"),
        {"family": LLAMA, "cos_low": 0.65, "curve": "power"},
    ),
    "a score": (
        (*PILOT[:4], "--target-score", "0.8", "--seed", "3"),
        {"pilots": ["50:0.61:200"], "zero_shot": "0.42:200", "target_score": 0.8, "seed": 3},
    ),
}


@pytest.fixture
def cli(monkeypatch, capsys):
    return lambda *arguments: run_cli(monkeypatch, capsys, *arguments)


@pytest.mark.parametrize(("options", "values"), ASKED.values(), ids=ASKED)
def test_the_same_question_has_the_same_answer(cli, options, values):
    code, out, err = cli("predict", *options, "--json")
    assert code == 0, err
    said = taskeff.predict(**values).to_dict()
    assert said == {key: value for key, value in json.loads(out).items() if key in said}


def test_objects_say_the_same_as_plain_values(tmp_path):
    (tmp_path / "pilots.csv").write_text("labels,score,n_test\n50,0.61,200\n")
    found = [
        taskeff.predict(family, pilots=pilots, zero_shot=zero_shot).to_dict()
        for family, pilots, zero_shot in (
            (taskeff.Calibration.load("generic"), [taskeff.Pilot(50, 0.61, 200)], 0.42),
            ("generic", [(50, 0.61, 200)], taskeff.Score(0.42)),
            ("generic", tmp_path / "pilots.csv", "0.42"),
        )
    ]
    assert found[0] == found[1] == found[2]


def test_a_result_of_score_is_taken_as_it_is_and_as_its_file(cli, tmp_path):
    result = {"cos_low": 0.65, "fingerprint": {}}
    file = tmp_path / "coslow.json"
    file.write_text(json.dumps(result))
    found = taskeff.predict(LLAMA, scored=result)
    assert found.to_dict() == taskeff.predict(LLAMA, scored=file).to_dict()
    assert found.labels_needed == taskeff.predict(LLAMA, 0.65).labels_needed
    said = json.loads(cli("predict", "--family", LLAMA, "--scored", file, "--json")[1])
    assert said["labels_needed"] == found.labels_needed


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"pilots": [(50,)], "zero_shot": 0.4}, r"pilot \(50,\): write BUDGET:SCORE"),
        ({"pilots": [50], "zero_shot": 0.4}, "pilot 50: write"),
        ({"pilots": [(50, 1.5)], "zero_shot": 0.4}, r"pilot \(50, 1.5\): score"),
        ({"pilots": [(50, 0.5)], "zero_shot": (0.4, 0)}, r"zero-shot \(0.4, 0\): n_test"),
        ({"pilots": "none.csv", "zero_shot": 0.4}, "none.csv"),
        ({"family": "no-such"}, "no-such"),
        ({"cos_low": 0.5, "scored": {}}, "not both"),
        ({"scored": {"cos_low": 0.5}}, "not the coslow.json of `taskeff score`: fingerprint"),
        ({"curve": "line"}, "use power or beta"),
        ({"target_score": 0.8, "cos_low": 0.5}, "zero-shot"),
    ],
)
def test_a_wrong_value_is_quoted(values, said):
    with pytest.raises(taskeff.TaskeffError, match=said):
        taskeff.predict(**values)


def test_select_score_and_rank_take_paths(cli, tiny_model, tmp_path):
    """The command line and Python draw the same rows and measure the same cosine."""
    family = made.family(tiny_model, tmp_path / "family")
    small = {"n_examples": 8, "pool_cap": 40, "max_new_tokens": 4}
    options = [word for key, value in small.items() for word in (f"--{key}", str(value))]
    options = [word.replace("_", "-").replace("--n-examples", "--n") for word in options]
    chosen = taskeff.select(
        str(tiny_model), "name_gender", tmp_path / "py", small, family=str(family)
    )
    common = ("--model", tiny_model, "--out", tmp_path / "cli")
    code, _, err = cli("select", *common, "--task", "name_gender", "--family", family, *options)
    assert code == 0, err
    drawn = json.loads((tmp_path / "cli" / "selection.json").read_text())
    assert drawn == chosen and chosen["fingerprint"]["max_new_tokens"] == 4
    for name in ("py", "cli"):
        made_of = tmp_path / name / "to_annotate.jsonl"
        rows = [json.loads(line) for line in made_of.read_text("utf-8").splitlines()]
        labels = [rows[0]["choices"][i % 2] for i in range(len(rows))]
        made.write_lines(made_of, [{**row, "label": x} for row, x in zip(rows, labels)])
    found = taskeff.score(tiny_model, tmp_path / "py")
    assert repr(found).startswith("<ScoredDataSet: name_gender, CoS-Low ")
    assert repr(found).endswith(" 8 examples>") and len(repr(found)) < 100
    assert cli("score", *common)[0] == 0
    assert found == json.loads((tmp_path / "cli" / "coslow.json").read_text())


def test_a_ranking_is_asked_for_in_plain_values(tiny_model, tmp_path, monkeypatch):
    from taskeff.run import ranking

    asked = {"manifest": tmp_path / "m.yaml", "family": "f.json", "out": tmp_path / "out"}
    family = made.family(tiny_model, tmp_path / "family")
    values = {**asked, "family": family, "model": tiny_model, "targets": (0.9,)}
    config = ranking.ranking_config(values, ["label_price=2"])
    assert (config.manifest, config.targets, config.label_price) == (
        str(tmp_path / "m.yaml"),
        (0.9,),
        2,
    )
    known = taskeff.Calibration.load(family).fingerprint
    assert (config.model.path, config.model.dtype) == (str(tiny_model), known["dtype"])
    with pytest.raises(taskeff.TaskeffError, match="--model"):
        taskeff.rank({**asked, "family": family})
    with pytest.raises(taskeff.TaskeffError, match="no such configuration file"):
        taskeff.rank(tmp_path / "none.yaml")


def test_importing_it_is_light_and_everything_is_listed():
    code = (
        "import sys, taskeff; heavy = ('torch', 'ray', 'transformers', 'matplotlib', 'numpy');"
        "print([m for m in heavy if m in sys.modules]);"
        "print(set(taskeff.__all__) - set(dir(taskeff)), taskeff.__version__[:1].isdigit())"
    )
    done = run_python(code)
    assert done.stdout.split("\n")[:2] == ["[]", "set() True"]


def test_what_runs_a_model_says_which_extra_brings_it():
    code = (
        "import sys; sys.modules['torch'] = None; import taskeff\n"
        "try: taskeff.select\n"
        "except taskeff.TaskeffError as error: print(error)"
    )
    done = run_python(code)
    assert "'torch'" in done.stdout and "pip install 'taskeff[run]'" in done.stdout


def test_every_name_is_there():
    assert [name for name in taskeff.__all__ if getattr(taskeff, name, None) is None] == []
