"""`taskeff pilot`: what it writes, what it resumes, which rows it trains and scores on, what it
refuses before any training."""

import json
import re

import pytest
import yaml
from rich.console import Console

from taskeff.config import TrainingConfig
from taskeff.config_file import load_config
from taskeff.estimate.pilots import read_pilots
from taskeff.finetune.cells import PUBLISHED_RECIPE, recipe_of, stored_recipe
from taskeff.models import model_config
from taskeff.run import pilot as module
from taskeff.run.labelled import labelled_task, read_hand_off
from taskeff.run.pilot import pilot, pilot_config
from taskeff.storage import Store
from taskeff.tasks.task import load_spec, load_task
from tests.helpers import SELECTION, TASKS, run_cli, run_values, write_task_file

QUIET = Console(quiet=True)
QUICK = ("training.max_steps=4", "training.batch_size=4", "evaluation.test_cap=20")


@pytest.fixture
def cli(monkeypatch, capsys):
    return lambda *arguments: run_cli(monkeypatch, capsys, *arguments)


@pytest.fixture
def nothing_is_trained(monkeypatch):
    def measured(*_, **__):
        raise AssertionError("something was measured")

    monkeypatch.setattr(module, "measure_cells", measured)


def rows(n, first=0):
    return [{"text": f"word {i}", "label": "ab"[i % 2]} for i in range(first, first + n)]


def task_file(folder, n=60, **changes):
    fields = {"description": "Answer a or b.", "doc_to_choice": ["a", "b"]}
    fields |= {"test_size": 20, "validation_size": 4}
    return write_task_file(folder, rows(n), **{**fields, **changes})


def unlabelled(folder, **changes):
    return task_file(folder, doc_to_target=None, test_size=None, validation_size=None, **changes)


def hand_off(folder, numbers, strategy="low", label=lambda i: "ab"[i % 2], **changes):
    """What `select` wrote of these rows of `rows`, labelled as `label` says."""
    from taskeff.coslow.handoff import to_annotate, write_lines
    from taskeff.tasks.examples import Example

    examples = [Example(f"train-{i}", f"word {i}") for i in numbers]
    records = to_annotate(examples, [0.5] * len(examples), ("a", "b"))
    selection = {
        "made_from": "test",
        "task": "mine",
        "rendered": False,
        "description": "Answer a or b.",
        "choices": ["a", "b"],
        "fingerprint": {"model": "tiny", "revision": "sha256:0", "strategy": strategy},
        "rows": records,
        "handed_out": {"name": "to_annotate.jsonl", "digest": "0"},
        **changes,
    }
    selection = SELECTION | selection
    folder.mkdir()
    Store(str(folder)).write_json(selection, "selection.json")
    filled = [{**r, "label": label(i)} for r, i in zip(records, numbers, strict=True)]
    (folder / "to_annotate.jsonl").write_bytes(write_lines(filled))
    return str(folder)


def test_from_the_command_line_to_a_file_that_is_read(cli, tiny_model, local_run, tmp_path):
    """The family's recipe, whose cells those of the calibration are: the same scores again."""
    family, out = local_run / "tiny", tmp_path / "mine"
    options = ("--model", tiny_model, "--task", TASKS[0], "--out", out, "--family", family)
    options += ("model.name=tiny",)
    code, said, err = cli("pilot", *options, "--budgets", "8,32")
    assert code == 0, err
    assert "3 cells: 0 done, 3 to measure" in said
    assert re.search(r"time: cells about .* worker-hours", said)
    assert said.index("worker-hours") < said.index("[  1/3]")
    last = said.splitlines()[-1].strip()
    wanted = f"taskeff predict --family {family} --pilots {out}/pilots.json --target 0.9"
    assert last == wanted
    written = json.loads((out / "pilots.json").read_text())
    assert written["schema"] == 1 and written["task"] == TASKS[0] and written["ceiling"] is None
    stored = json.loads((family / "calibration.json").read_text())["fingerprint"]
    fields = ("model", "revision", "template_hash", "dtype", "recipe")
    assert written["fingerprint"] == {field: stored[field] for field in fields}
    table = Store(str(family)).read_table("curves.parquet").to_pylist()
    scores = {row["budget"]: row["score"] for row in table if row["task"] == TASKS[0]}
    assert written["zero_shot"] == {"score": scores[0], "n_test": 30}
    pilots = [{"labels": n, "score": scores[n], "n_test": 30, "seed": 0} for n in (8, 32)]
    assert written["pilots"] == pilots
    assert [p.score for p in read_pilots(out / "pilots.json").merged()] == [scores[8], scores[32]]
    before = (out / "pilots.json").read_bytes()
    code, said, _ = cli("pilot", *options, "--budgets", "8,32")
    assert code == 0 and "all 3 cells are measured already" in said
    assert (out / "pilots.json").read_bytes() == before


def test_more_budgets_and_draws_measure_only_those(tiny_model, tmp_path):
    task = str(task_file(tmp_path))

    def run(budgets, draws):
        console = Console(record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        model = model_config(str(tiny_model))
        config = pilot_config(
            model, task, budgets, str(tmp_path / "out"), draws=draws, overrides=QUICK
        )
        return pilot(config, console=console), console.export_text()

    first, said = run([8], 1)
    assert "2 of 2 cells to measure" in said
    both, said = run([8, 36], 2)
    assert "3 of 5 cells to measure" in said
    assert "every draw of 36 labels is all the rows there are" in said
    assert "scores on 20 rows have a standard error of up to 0.11" in said
    assert both.zero_shot == first.zero_shot
    assert [(p.labels, p.seed) for p in both.pilots] == [(8, 0), (8, 1), (36, 0), (36, 1)]
    assert both.pilots[0] == first.pilots[0]


def test_its_cost_alone(cli, tiny_model, tmp_path, nothing_is_trained):
    options = ("--model", tiny_model, "--task", task_file(tmp_path), "--out", tmp_path / "out")
    code, said, _ = cli("pilot", *options, "--budgets", "8", "--plan")
    assert code == 0 and "2 cells: 0 done, 2 to measure" in said
    assert "training.masters none" not in said
    rounded = cli("pilot", *options, "--budgets", "8", "--plan", "--dtype", "bfloat16")[1]
    assert "training.masters none: a step of 1e-05 is lost on about" in rounded
    assert "the published: all weights, learning rate 1e-05, at most 500 steps of 32" in said
    assert not (tmp_path / "out/pilots.json").exists()


def test_handed_out_rows_alone_as_json(cli, tiny_model, tmp_path):
    options = ("--model", tiny_model, "--task", unlabelled(tmp_path), "--out", tmp_path / "out")
    for folder, numbers, strategy in (("a", range(9), "low"), ("b", range(9, 23), "random")):
        options += ("--labels", hand_off(tmp_path / folder, numbers, strategy))
    code, said, err = cli("pilot", *options, "--budgets", "8", "--json", *QUICK)
    assert code == 0, err
    assert json.loads(said) == json.loads((tmp_path / "out/pilots.json").read_text())
    assert json.loads(said)["zero_shot"]["n_test"] == 7


@pytest.mark.slow
@pytest.mark.cluster
def test_ray_measures_the_same(cli, tiny_model, tmp_path):
    """Rows that were handed out reach the workers too."""
    spec = unlabelled(tmp_path)
    fair = hand_off(tmp_path / "fair", range(40), "random")
    found = {}
    for where in ((), ("--ray",)):
        out = tmp_path / f"out{len(where)}"
        options = ("--model", tiny_model, "--task", spec, "--labels", fair, "--out", out)
        code, said, err = cli("pilot", *options, "--budgets", "8", "--json", *where, *QUICK)
        assert code == 0, err
        found[where] = json.loads(said)
    assert found[()] == found[("--ray",)]
    assert found[()]["zero_shot"]["n_test"] == 20


def test_rows_labelled_for_coslow_are_trained_on_and_never_scored_on(tmp_path):
    spec = load_spec(unlabelled(tmp_path))
    low = read_hand_off(hand_off(tmp_path / "low", range(20)), spec)
    fair = read_hand_off(hand_off(tmp_path / "fair", range(18, 48), "random") + "/", spec)
    assert (low.fair, fair.fair) == (False, True)
    task = labelled_task(spec, 0, [low, fair])
    texts = {
        name: {int(row.text.split()[1]) for row in getattr(task, name)}
        for name in ("train", "validation", "test")
    }
    assert len(texts["test"]) == 15 and texts["test"] <= set(range(18, 48))
    assert sorted(n for part in texts.values() for n in part) == list(range(48))
    assert len(texts["validation"]) == 3
    assert all(row.target == "ab"[int(row.text.split()[1]) % 2] for row in task.train)
    assert "20 labelled rows, drawn for their low confidence" in task.notes[0]
    assert "2 of them in another folder too" in task.notes[1]
    assert labelled_task(spec, 0, [low, fair]).data_hash == task.data_hash
    assert labelled_task(spec, 1, [low, fair]).test != task.test
    own = load_spec(task_file(tmp_path, doc_to_target=None, test_size=10))
    assert len(labelled_task(own, 0, [low, fair]).test) == 10


def test_a_task_with_answers_keeps_its_test_rows(tmp_path):
    spec = load_spec(task_file(tmp_path, n=60))
    alone = load_task(spec, 0)
    tested = int(alone.test[0].text.split()[1])
    known = int(alone.train[0].text.split()[1])
    numbers = [tested, known, 100, 101, 102]
    labels = {known: "ba"[known % 2], 102: ""}
    where = hand_off(tmp_path / "low", numbers, label=lambda i: labels.get(i, "a"))
    task = labelled_task(spec, 0, [read_hand_off(where, spec)])
    assert list(task.test) == list(alone.test) and list(task.validation) == list(alone.validation)
    assert [row.text for row in task.train[len(alone.train) :]] == ["word 100", "word 101"]
    assert task.train[0].target == alone.train[0].target
    (note,) = task.notes
    assert "4 labelled rows" in note and "1 without a label are left out" in note
    assert "2 more to train on, 1 are held back" in note
    assert "1 were there already, 1 of them with another label, which is kept" in note


def test_a_file_in_the_folder_is_read_in_its_place(tmp_path):
    folder = hand_off(tmp_path / "low", range(4), label=lambda i: "")
    lines = (tmp_path / "low/to_annotate.jsonl").read_text().replace('"label": ""', '"label": "a"')
    (tmp_path / "low/filled.jsonl").write_text(lines)
    spec = load_spec(unlabelled(tmp_path))
    assert len(read_hand_off(f"{folder}/filled.jsonl", spec).rows) == 4


def test_the_published_recipe_is_that_of_the_configurations():
    for name in ("llama-3.1-8b-instruct", "mistral-7b-instruct-v0.3", "qwen2.5-14b-instruct"):
        config = load_config(f"configs/{name}.yaml")
        cells = {"budgets": config.training.budgets, "seeds": config.training.seeds}
        assert config.training == PUBLISHED_RECIPE.model_copy(update=cells)


def test_a_recipe_comes_back_as_it_was(tiny_model, tmp_path):
    values = run_values(tiny_model, tmp_path)
    config = load_config(write(tmp_path, values))
    training, test_cap = stored_recipe({"recipe": recipe_of(config)}, "f")
    cells = {"budgets": config.training.budgets, "seeds": config.training.seeds}
    assert training.model_copy(update=cells) == config.training
    assert test_cap == 30 and isinstance(training, TrainingConfig)
    assert stored_recipe({"model": "x"}, "f") is None


def write(folder, values):
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


BAD = {
    "too few rows": (
        (lambda f: ("--task", task_file(f, n=30), "--budgets", "8")),
        "30 labelled rows leave 6 to train on beside 20 to score on and 4 for validation, and "
        "--budgets asks for 8: label 2 more",
    ),
    "no labels": (
        (lambda f: ("--task", unlabelled(f), "--budgets", "8")),
        "task 'mine' (", "no labels: name the column with the answer in doc_to_target",
    ),
    "only least confident rows": (
        (lambda f: ("--task", unlabelled(f), "--labels", hand_off(f / "low", range(32)))),
        "32 labelled rows, all among the least confident", "--strategy random",
    ),
    "an unknown family": (
        (lambda f: ("--task", task_file(f), "--family", "llama")),
        "'llama' is neither a bundled family",
    ),
    "a family of another model": (
        (lambda f: ("--task", task_file(f), "--family", "smollm2-135m-instruct")),
        "family 'smollm2-135m-instruct' is of model 'smollm2-135m-instruct', this is",
    ),
    "budgets that are none": (
        (lambda f: ("--task", task_file(f), "--budgets", "a,8")), "--budgets 'a,8'",
    ),
    "a budget of 0": ((lambda f: ("--task", task_file(f), "--budgets", "0,8")), "from 1 up"),
    "no budget": ((lambda f: ("--task", task_file(f), "--budgets", ",")), "from 1 up"),
    "no draw": ((lambda f: ("--task", task_file(f), "--draws", "0")), "--draws 0"),
    "no selection": (
        (lambda f: ("--task", task_file(f), "--labels", f)), "holds no selection.json",
    ),
    "no label yet": (
        (lambda f: (
            "--task", unlabelled(f), "--labels", hand_off(f / "l", range(8), label=lambda i: ""),
        )),
        "none of its 8 rows has a label yet",
    ),
    "another task's rows": (
        (lambda f: (
            "--task", unlabelled(f), "--labels", hand_off(f / "l", range(8), task="theirs"),
        )),
        "rows of 'theirs', not rows of task 'mine'",
    ),
    "rendered prompts": (
        (lambda f: (
            "--task", unlabelled(f), "--labels", hand_off(f / "l", range(8), rendered=True),
        )),
        "prompts that are rendered already",
    ),
    "a label of no choice": (
        (lambda f: (
            "--task", unlabelled(f, doc_to_choice=["b", "c"]),
            "--labels", hand_off(f / "l", range(8)),
        )),
        "train-0: label 'a' is not in doc_to_choice ['b', 'c']",
    ),
    "an override that is none": (
        (lambda f: ("--task", task_file(f), "training.max_stepz=3")),
        "training.max_stepz: unknown key; did you mean 'max_steps'?",
    ),
    "no such model": (
        (lambda f: ("--task", task_file(f), "--model", f / "none")), "no such folder",
    ),
    "no such task": ((lambda f: ("--task", f / "none.yaml")), "no such task file"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_before_any_training(
    cli, tiny_model, tmp_path, nothing_is_trained, case
):
    options, *needles = BAD[case]
    given = list(options(tmp_path))
    for name, value in (("--model", tiny_model), ("--budgets", "8"), ("--out", tmp_path / "out")):
        if name not in given:
            given += [name, value]
    code, _, err = cli("pilot", *given)
    assert code == 2
    assert err.startswith("error:") and "Traceback" not in err
    for needle in needles:
        assert needle in err


def test_a_recipe_of_another_version_is_named(cli, tiny_model, local_run, tmp_path):
    stored = json.loads((local_run / "tiny/calibration.json").read_text())
    stored["fingerprint"]["recipe"]["training"]["momentum"] = 0.9
    (tmp_path / "calibration.json").write_text(json.dumps(stored))
    options = ("--model", tiny_model, "--task", TASKS[0], "--budgets", "8", "--out", tmp_path)
    code, _, err = cli("pilot", *options, "--family", tmp_path)
    assert code == 2 and "fingerprint.recipe: momentum: unknown key" in err


def test_a_departure_from_the_familys_recipe_is_said(cli, tiny_model, local_run, tmp_path):
    options = ("--model", tiny_model, "--task", TASKS[0], "--budgets", "8", "--out", tmp_path)
    options += ("--family", local_run / "tiny", "--plan", "model.name=tiny")
    code, said, err = cli("pilot", *options, "training.max_steps=2")
    assert code == 0, err
    assert "training.max_steps differs: the family's is 40, this is 2" in " ".join(said.split())
