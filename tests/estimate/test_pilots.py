import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskeff.errors import EstimateError
from taskeff.estimate.pilots import as_pilot, as_score, read_pilots
from taskeff.estimate.posterior import Pilot, Score

pilots = st.builds(Pilot, st.integers(1, 10**6), st.floats(0, 1), st.none() | st.integers(1, 10**6))


def test_written_on_the_command_line():
    assert as_pilot("50:0.61") == Pilot(50, 0.61)
    assert as_pilot("50:0.61:2000") == Pilot(50, 0.61, 2000)


@given(st.lists(pilots, min_size=1, max_size=5, unique_by=lambda p: p.budget))
def test_both_files_say_the_same(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("pilots")
    table = "".join(f"{p.score!r},{p.budget},{p.n_test or ''}\n" for p in rows)
    (folder / "p.csv").write_text("score,budget,n_test\n" + table)
    values = [{"budget": p.budget, "score": p.score, "n_test": p.n_test} for p in rows]
    (folder / "list.json").write_text(json.dumps(values))
    (folder / "answer.json").write_text(json.dumps({"auc": 0.4, "pilots": values}))
    for name in ("p.csv", "list.json", "answer.json"):
        assert read_pilots(folder / name).merged() == sorted(rows, key=lambda p: p.budget)


FILE = {
    "schema": 1,
    "task": "colours",
    "fingerprint": {"model": "m"},
    "zero_shot": {"score": 0.42, "n_test": 200},
    "ceiling": None,
    "pilots": [
        {"labels": 50, "score": 0.6, "n_test": 200, "seed": 0},
        {"labels": 50, "score": 0.7, "n_test": 150, "seed": 1},
        {"labels": 8, "score": 0.5, "n_test": 200, "seed": 0},
    ],
}


def test_what_taskeff_pilot_writes(tmp_path):
    (tmp_path / "pilots.json").write_text(json.dumps(FILE))
    found = read_pilots(tmp_path / "pilots.json")
    assert (found.task, found.base, found.ceiling) == ("colours", Score(0.42, 200), None)
    assert found.merged() == [Pilot(8, 0.5, 200), Pilot(50, pytest.approx(0.65), 150)]
    assert json.loads(found.model_dump_json(by_alias=True)) == {**FILE, "rows": {}}


@pytest.mark.parametrize("text", ["50", "50:a", "x:0.5", "50:1.5", "0:0.5", "1:2:3:4", "50:nan"])
def test_bad_pilots_are_quoted(text):
    with pytest.raises(EstimateError, match=text):
        as_pilot(text)


@pytest.mark.parametrize("text", ["", "a", "1.5", "0.5:0", "0.5:1:2", "0.5:1.5"])
def test_bad_scores_are_quoted(text):
    with pytest.raises(EstimateError, match=f"zero-shot '{text}'"):
        as_score(text, "zero-shot")
    assert as_score("0.42:200", "zero-shot") == Score(0.42, 200)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.csv", "budget,score\n50,0.5\n100,61\n", r"p\.csv, line 3: score: .*equal to 1"),
        ("p.csv", "budget,score\n50,nan\n", r"p\.csv, line 2: score"),
        ("p.csv", "budget,score\n50.5,0.3\n", r"line 2: budget"),
        ("p.csv", "budget,score\n50,0.3\n20,0.2\n50,0.4\n", r"p\.csv: pilots: 50 labels"),
        ("p.csv", "budget,score,n_test\n50,0.3,0\n", "line 2: n_test"),
        ("p.csv", "n,score\n50,0.3\n", "line 2: labels: Field required"),
        ("p.csv", "n,m\n50,0.3\n", "line 1: expected the columns"),
        ("p.csv", "budget,score\n", "no pilot"),
        ("p.json", "[]", "no pilot"),
        ("p.json", "{", "not JSON"),
        ("p.json", "3", "expected a list"),
        ("p.json", '[{"budget": 50, "score": 0.5}, 3]', "entry 2: expected an object"),
        ("p.json", '[{"budget": 50}]', "entry 1: score: Field required"),
        ("p.json", '[{"budget": true, "score": 0.1}]', "entry 1: budget: True"),
        ("p.json", json.dumps({**FILE, "schema": 2}), "p.json: schema"),
        ("p.json", json.dumps({**FILE, "pilots": []}), "p.json: pilots"),
        ("p.json", json.dumps({**FILE, "zero_shot": {"n_test": 3}}), r"zero_shot\.score"),
        ("p.json", json.dumps({**FILE, "pilots": FILE["pilots"][:1] * 2}), "50 labels with seed 0"),
    ],
)
def test_bad_files_name_the_row(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(EstimateError, match=said):
        read_pilots(tmp_path / name)


def test_no_file(tmp_path):
    with pytest.raises(EstimateError, match=r"none\.csv cannot be read"):
        read_pilots(tmp_path / "none.csv")
