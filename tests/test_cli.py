"""Bad input at the command line: one clear error, exit code 2, no traceback, before any work."""

import json

import pytest

from taskeff.config_file import load_config
from taskeff.errors import ConfigError
from tests.helpers import run_cli, run_python, run_values, write_config, write_task_file


@pytest.fixture
def cli(monkeypatch, capsys):
    return lambda *arguments: run_cli(monkeypatch, capsys, *arguments)


@pytest.fixture
def values(tiny_model, tmp_path):
    return run_values(tiny_model, tmp_path / "results")


def refuse(cli, tmp_path, values, *needles, verb="validate"):
    code, _, err = cli(verb, "-c", write_config(tmp_path, values))
    assert code == 2
    assert "error:" in err
    assert "Traceback" not in err
    for needle in needles:
        assert needle in err


def with_task(values, path):
    return {**values, "tasks": {"calibration": [str(path), "name_gender"], "held_out": []}}


def test_a_good_run_validates(cli, tmp_path, values):
    code, out, _ = cli("validate", "-c", write_config(tmp_path, values))
    assert code == 0
    assert "3 tasks and 9 cells are ready to run" in out


def test_plan_counts_cells(cli, tmp_path, values):
    code, out, _ = cli("plan", "-c", write_config(tmp_path, values))
    assert code == 0
    assert "9 cells: 0 done, 9 to measure" in out


def test_unknown_key_names_the_nearest(cli, tmp_path, values):
    bad = {**values, "training": {**values["training"], "budgts": [8]}}
    refuse(cli, tmp_path, bad, "training.budgts", "did you mean 'budgets'?")


def test_unknown_override_is_refused(cli, tmp_path, values):
    code, _, err = cli("validate", "-c", write_config(tmp_path, values), "modell.path=x")
    assert code == 2
    assert "did you mean 'model'?" in err


def test_missing_configuration(cli, tmp_path):
    code, _, err = cli("validate", "-c", tmp_path / "no.yaml")
    assert code == 2
    assert "no such configuration file" in err


def test_broken_yaml(cli, tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("a: [1, 2", encoding="utf-8")
    code, _, err = cli("validate", "-c", path)
    assert code == 2
    assert "broken.yaml" in err


def test_missing_write_task_file(cli, tmp_path, values):
    refuse(cli, tmp_path, with_task(values, str(tmp_path / "no.yaml")), "no such task file")


def test_unknown_bundled_task(cli, tmp_path, values):
    refuse(cli, tmp_path, with_task(values, "sentiment_word"), "'sentiment_words'")


def test_task_without_test_rows(cli, tmp_path, values):
    rows = [{"text": "same", "label": "a"}] * 5
    path = write_task_file(tmp_path, rows, test_size=1, validation_size=1)
    refuse(cli, tmp_path, with_task(values, path), "'mine'", "no training rows")


def test_budget_above_rows(cli, tmp_path, values):
    rows = [{"text": f"row {i}", "label": "a"} for i in range(30)]
    refuse(
        cli,
        tmp_path,
        with_task(values, write_task_file(tmp_path, rows)),
        "budget 32",
        "24 training",
    )


def test_empty_prompt_names_its_row(cli, tmp_path, values):
    rows = [{"text": "" if i == 7 else f"row {i}", "label": "a"} for i in range(60)]
    refuse(
        cli, tmp_path, with_task(values, write_task_file(tmp_path, rows)), "line 8", "empty prompt"
    )


def test_missing_column_names_the_known_ones(cli, tmp_path, values):
    rows = [{"text": f"row {i}", "label": "a"} for i in range(60)]
    path = write_task_file(tmp_path, rows, doc_to_text="{{txt}}")
    refuse(cli, tmp_path, with_task(values, path), "doc_to_text", "'txt'", "columns are: text")


def test_label_outside_the_choices(cli, tmp_path, values):
    rows = [{"text": f"row {i}", "label": "ab"[i % 2]} for i in range(60)]
    path = write_task_file(tmp_path, rows, doc_to_choice=["a"])
    refuse(cli, tmp_path, with_task(values, path), "line 2", "'b'", "doc_to_choice")


def test_storage_that_cannot_be_written(cli, tmp_path, values):
    blocker = tmp_path / "file"
    blocker.write_text("in the way", encoding="utf-8")
    refuse(cli, tmp_path, {**values, "storage": str(blocker / "below")}, "not writable")


def test_model_folder_without_tokenizer(cli, tmp_path, values, tiny_model):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((tiny_model / name).read_bytes())
    bad = {**values, "model": {**values["model"], "path": str(folder)}}
    refuse(cli, tmp_path, bad, "tokenizer", str(folder))


def test_missing_model_folder(cli, tmp_path, values):
    bad = {**values, "model": {**values["model"], "path": "./nowhere"}}
    refuse(cli, tmp_path, bad, "no such folder")


def test_zero_tasks(cli, tmp_path, values):
    bad = {**values, "tasks": {"calibration": [], "held_out": []}}
    refuse(cli, tmp_path, bad, "no tasks")


def test_one_task_cannot_be_fitted(cli, tmp_path, values):
    bad = {**values, "tasks": {"calibration": ["name_gender"], "held_out": []}}
    refuse(cli, tmp_path, bad, "at least 2", verb="calibrate")


def test_two_tasks_of_one_name(cli, tmp_path, values):
    bad = {**values, "tasks": {"calibration": ["name_gender", "name_gender"], "held_out": []}}
    refuse(cli, tmp_path, bad, "two tasks are called 'name_gender'")


def test_cap_below_the_largest_budget(cli, tmp_path, values):
    refuse(cli, tmp_path, {**values, "curve": {"cap": 16}}, "curve.cap 16", "32")


@pytest.mark.parametrize(
    ("family", "slope", "intercept"),
    [
        ("llama-3.1-8b-instruct", 0.545, 0.310),
        ("mistral-7b-instruct-v0.3", 0.797, 0.357),
        ("qwen2.5-14b-instruct", 0.526, 0.305),
    ],
)
def test_predict_is_the_published_formula(cli, family, slope, intercept):
    code, out, _ = cli(
        *("predict", "--family", family, "--cos-low", "0.65", "--target", "0.9"),
        *("--curve", "power", "--json"),
    )
    assert code == 0
    found = json.loads(out)
    area = slope * 0.65 + intercept
    assert found["auc"] == pytest.approx(area, abs=1e-12)
    assert found["labels_needed"] == pytest.approx(5000 ** (0.9 ** (area / (1 - area))), rel=1e-9)
    assert found["interval"] is None


@pytest.mark.parametrize("curve", [(), ("--curve", "power")])
def test_target_as_a_score_is_the_same_share(cli, curve):
    common = ["predict", "--family", "qwen2.5-14b-instruct", "--cos-low", "0.4", *curve]
    common += ["--zero-shot", "0.2", "--ceiling", "1.0", "--json"]
    share = json.loads(cli(*common, "--target", "0.8")[1])
    score = json.loads(cli(*common, "--target-score", "0.84")[1])
    assert score["labels_needed"] == pytest.approx(share["labels_needed"])


def test_predict_refuses_what_the_line_cannot_answer(cli):
    code, _, err = cli("predict", "--family", "mistral-7b-instruct-v0.3", "--cos-low", "0.95")
    assert code == 2
    assert "0.95" in err
    assert "mistral-7b-instruct-v0.3" in err


def test_predict_imports_neither_torch_nor_ray():
    code = (
        "import sys, taskeff; from taskeff import predict, Calibration; import taskeff.cli;"
        "predict(Calibration.load('llama-3.1-8b-instruct'), 0.5, target=0.8);"
        "print([m for m in ('torch', 'ray', 'transformers') if m in sys.modules])"
    )
    done = run_python(code)
    assert done.stdout.strip() == "[]"


def test_yes_and_no_of_yaml_are_the_words_that_were_meant(tmp_path):
    path = write_config(tmp_path, run_values(tmp_path / "m", tmp_path))
    loaded = load_config(path, ["training.mixed_precision=no"])
    assert loaded.training.mixed_precision == "no"
    with pytest.raises(ConfigError, match=r"strategy: .* YAML reads yes, no, on and off as true"):
        load_config(path, ["training.strategy=off"])
