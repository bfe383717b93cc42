import json

import pytest

from taskeff.curves.published import import_results, read_ceilings, read_curves, read_scores
from taskeff.errors import DataError
from tests.estimate.reference import REFERENCE, needs_reference


def write(folder, **files):
    for name, value in files.items():
        text = value if isinstance(value, str) else json.dumps(value)
        (folder / f"{name}.json").write_text(text)


@needs_reference
def test_every_published_area_to_1e_9():
    found = import_results(REFERENCE / "llama_finetune_results", REFERENCE / "ceilings.json")
    published = json.loads((REFERENCE / "llama_auc_5000.json").read_text())
    assert found["tasks"].keys() == published.keys()
    for name, expected in published.items():
        assert abs(found["tasks"][name]["auc"] - expected["extrapolation_auc"]) <= 1e-9
        assert abs(found["tasks"][name]["ceiling"] - expected["human_eval"]) <= 1e-9


def test_metrics_of_a_row(tmp_path):
    write(
        tmp_path,
        plain={"0": {"accuracy": 0.1}, "50": {"exact_string_match_accuracy": 0.2}},
        free={"0": {"f1": 0.3, "exact_string_match_accuracy": 0.0}, "50": {"f1": 0.4}},
    )
    assert read_scores(tmp_path) == {"plain": {0: 0.1, 50: 0.2}, "free": {0: 0.3, 50: 0.4}}


def test_tasks_that_the_paper_drops_are_named(tmp_path):
    rows = {"0": {"accuracy": 0.1}, "50": {"accuracy": 0.2}}
    write(tmp_path, good=rows, text=rows, thin={"0": {"accuracy": 0.1}})
    ceilings = tmp_path.parent / "ceilings.json"
    ceilings.write_text(json.dumps({"text": {"score": "sequence_f1"}, "good": {"score": 0.9}}))
    curves, dropped = read_curves(tmp_path, ceilings)
    assert curves.keys() == {"good"} and dropped.keys() == {"text", "thin"}
    assert "sequence_f1" in dropped["text"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"0": {"accuracy": 0.1}, "50": {}}, "row '50'"),
        ({"0": {"accuracy": 0.1}, "50": {"accuracy": 43.0}}, "row '50'"),
        ({"0": {"accuracy": 0.1}, "fifty": {"accuracy": 0.3}}, "row 'fifty'"),
        ('{"0": {"accuracy": NaN}, "50": {"accuracy": 0.1}}', "row '0'"),
        ("{broken", "not JSON"),
        ("[]", "expected one JSON object"),
    ],
)
def test_bad_files_name_file_and_row(tmp_path, content, said):
    write(tmp_path, task=content)
    with pytest.raises(DataError, match=said) as caught:
        import_results(tmp_path)
    assert "task.json" in str(caught.value)


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        read_scores(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no \.json file"):
        read_scores(tmp_path)


@pytest.mark.parametrize("entry", [3, {"value": 1}, {"score": 1.5}, {"score": True}])
def test_bad_ceilings_name_the_task(tmp_path, entry):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"t": entry}))
    with pytest.raises(DataError, match="'t'"):
        read_ceilings(path)
