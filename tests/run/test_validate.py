"""`taskeff validate`: bad input is one line each, naming file, row and fix, all of them at once."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoTokenizer, LlamaConfig

from taskeff.config_file import parse_config
from taskeff.errors import TaskeffError
from taskeff.models import parameter_count
from taskeff.run.checks import rounding_note
from taskeff.run.plan import make_plan
from taskeff.run.validate import Validation, validate
from taskeff.tasks.prompts import Prompter
from taskeff.tasks.task import load_spec
from tests.helpers import run_cli, run_values, write_config

ROWS = [{"text": f"row {i}", "label": "ab"[i % 2]} for i in range(60)]


def task_file(folder: Path, rows: list[dict] | str = ROWS, name: str = "mine", **changes) -> str:
    """A task over `rows` of JSON lines, or over the text of a broken file."""
    lines = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    values = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": f"{name}.jsonl"},
        "doc_to_text": "{{text}}",
        "doc_to_target": "{{label}}",
        **changes,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return str(path)


@pytest.fixture
def check(tiny_model, tmp_path):
    """The validation of a run over some task files and a bundled task."""

    def run(*paths: str, **changes) -> Validation:
        values = run_values(tiny_model, tmp_path / "results", **changes)
        tasks = {"calibration": [*paths, "name_gender"], **values.pop("more_tasks", {})}
        return validate(parse_config({**values, "tasks": tasks}, "test"))

    return run


def with_rows(*extra: dict) -> list[dict]:
    return [*ROWS, *extra]


LONG = "word " * 3000
# What is wrong -> (rows, changes of the task file, words of the one line that says so).
BAD = {
    "missing column": (
        ROWS,
        {"doc_to_text": "{{txt}}"},
        ["mine.jsonl, line 1:", "'txt'", "columns are"],
    ),
    "label outside the set": (
        with_rows({"text": "new", "label": "c"}),
        {"doc_to_choice": ["a", "b"]},
        ["mine.jsonl, line 61:", "'c'", "mend the row or add the answer"],
    ),
    "unlabelled row": (
        with_rows({"text": "new", "label": None}),
        {},
        ["mine.jsonl, line 61:", "doc_to_target renders an empty answer", "label the row"],
    ),
    "template without the answer": (
        ROWS,
        {"doc_to_target": "a"},
        ["doc_to_target", "names no column", "write a column"],
    ),
    "template that is none": (ROWS, {"doc_to_text": "{{text"}, ["doc_to_text", "line 1"]),
    "two answers that count as one": (
        ROWS,
        {"doc_to_choice": ["a", "A.", "b"]},
        ["'a' and 'A.' count as the same answer", "drop one"],
    ),
    "prompt longer than the window": (
        with_rows({"text": LONG, "label": "a"}, {"text": LONG + "more", "label": "b"}),
        {},
        ["of mine.jsonl", "window has 2048", "2 such rows", "shorten the text in doc_to_text"],
    ),
    "answer longer than its bound": (
        with_rows({"text": "new", "label": "x" * 90}),
        {"doc_to_choice": ["a", "b", "x" * 90], "max_new_tokens": 4},
        ["takes", "more than max_new_tokens 4", "raise max_new_tokens"],
    ),
    "budget above rows": (ROWS[:30], {}, ["budget 32", "24 training rows", "tasks.short=stop"]),
    "unreadable file": (
        '{"text": "a", "label": "b"}\n{"text": ',
        {},
        ["mine.jsonl, line 2: not JSON", "mend the line"],
    ),
    "empty split": (
        ROWS,
        {"doc_to_keep": "{{label == 'c'}}"},
        ["split 'train' has no rows that doc_to_keep keeps", "add rows"],
    ),
    "missing split": (ROWS, {"test_split": "test"}, ["no split 'test'", "there are: train"]),
    "code from the hub": (
        ROWS,
        {"dataset_kwargs": {"data_files": "mine.jsonl", "trust_remote_code": True}},
        ["trust_remote_code", "no data set's code is run"],
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_line_that_names_it(what, check, tmp_path):
    rows, changes, needles = BAD[what]
    found = check(task_file(tmp_path, rows, **changes))
    assert len(found.problems) == 1, [str(p) for p in found.problems]
    said = str(found.problems[0])
    assert "\n" not in said
    assert "mine.yaml" in said
    for needle in needles:
        assert needle in said


def test_a_missing_data_file_is_named(check, tmp_path):
    path = task_file(tmp_path)
    (tmp_path / "mine.jsonl").unlink()
    (problem,) = check(path).problems
    assert "mine.yaml" in str(problem) and "mine.jsonl does not exist" in str(problem)


def test_two_tasks_of_one_name_are_named_with_their_files(check, tmp_path):
    (tmp_path / "other").mkdir()
    paths = [task_file(tmp_path), task_file(tmp_path / "other")]
    (problem,) = check(*paths).problems
    assert "two tasks are called 'mine'" in str(problem)
    assert all(path in str(problem) for path in paths)


def test_everything_wrong_is_said_at_once(tmp_path, tiny_model, monkeypatch, capsys):
    blocker = tmp_path / "file"
    blocker.write_text("in the way", encoding="utf-8")
    broken = [
        task_file(tmp_path, name=f"broken{i}", **BAD[what][1])
        for i, what in enumerate(["missing column", "template without the answer"])
    ]
    values = run_values(tiny_model, blocker / "below")
    values["model"] = {**values["model"], "path": "./nowhere"}
    values["tasks"] = {"calibration": [*broken, "name_gendr", str(tmp_path / "no.yaml")]}
    code, out, err = run_cli(monkeypatch, capsys, "validate", "-c", write_config(tmp_path, values))
    assert code == 2
    assert "6 things are wrong" in err
    for needle in ("not writable", "no such folder", "'txt'", "names no column", "'name_gender'"):
        assert needle in err
    assert "no such task file" in err
    assert "ready to run" not in out


def test_one_prompt_per_task_with_its_loss_span(tmp_path, tiny_model, monkeypatch, capsys):
    path = task_file(tmp_path, description="Say a or b.")
    values = run_values(tiny_model, tmp_path / "results")
    values["tasks"] = {"calibration": [path, "name_gender"]}
    config = write_config(tmp_path, values)
    code, out, _ = run_cli(monkeypatch, capsys, "validate", "-c", config)
    assert code == 0
    assert out.count("⟦") == out.count("⟧") == 2
    shown = out.split("⟧")[0].replace("\n  | ", "\n")
    prompt, answer = shown.split("⟦")
    prompter = Prompter(AutoTokenizer.from_pretrained(tiny_model), "Say a or b.")
    row = make_plan(parse_config(values, "test")).tasks["mine"].train[0]
    encoded = prompter.encode_example(row, end_of_turn=True)
    assert prompt.endswith(prompter.tokenizer.decode(encoded.prompt_ids))
    assert answer == f"{row.target}<|im_end|>"
    assert (
        run_cli(monkeypatch, capsys, "validate", "-c", config, "--no-examples")[1].count("⟦") == 0
    )


def test_a_short_task_stops_at_its_rows_and_says_so(check, tmp_path, tiny_model):
    path = task_file(tmp_path, [*ROWS[:30]])
    found = check(path, more_tasks={"short": "stop"})
    assert not found.problems
    assert [task.budgets for task in found.tasks] == [(8, 24), (8, 32)]
    assert found.cells == 6
    (note,) = found.notes
    assert "24 training rows, so budgets 32 are not measured" in note
    assert "curve ends at 24 and is held at its last score up to 32" in note


def test_the_plan_of_a_short_task_has_no_cell_above_its_rows(tmp_path, tiny_model):
    values = run_values(tiny_model, tmp_path / "results", training={"budgets": [8, 16, 32, 64]})
    values["curve"] = {"cap": 128}
    paths = [
        task_file(tmp_path, ROWS[:30], name="thirty"),
        task_file(tmp_path, ROWS[:21], name="twenty"),
    ]
    values["tasks"] = {"calibration": [*paths, "name_gender"], "short": "stop"}
    plan = make_plan(parse_config(values, "test"))
    # 17 rows are hardly more than 16, 24 are half as much again.
    assert plan.budgets("twenty") == (8, 16)
    assert plan.budgets("thirty") == (8, 16, 24)
    assert plan.budgets("name_gender") == (8, 16, 32, 64)
    assert {c.budget for c in plan.cells if c.task == "thirty"} == {0, 8, 16, 24}
    assert len(plan.notes) == 2
    assert all("below a quarter, so the fit leaves it out" in note for note in plan.notes)


def test_labels_that_cannot_be_learned_are_noted(check, tmp_path):
    rows = [{"text": f"row {i}", "label": "a"} for i in range(60)]
    path = task_file(tmp_path, rows, doc_to_choice=["a", "b"])
    (note,) = check(path).notes
    assert "every training row's answer is 'a'" in note


@pytest.fixture
def model(tiny_model, tmp_path):
    """A copy of the model that a test may break."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    return folder


def problems_of(model: Path, tmp_path: Path) -> list[str]:
    values = run_values(model, tmp_path / "results")
    return [str(problem) for problem in validate(parse_config(values, "test")).problems]


def test_weights_are_safetensors_only(model, tmp_path):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    (problem,) = problems_of(model, tmp_path)
    assert "safetensors only" in problem and "save_pretrained" in problem


def test_a_missing_shard_is_named(model, tmp_path):
    (model / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (problem,) = problems_of(model, tmp_path)
    assert "1 of 1 weight files are missing (model-00001-of-00002.safetensors" in problem


def test_a_models_own_code_is_never_run(model, tmp_path):
    path = model / "config.json"
    values = json.loads(path.read_text())
    values["model_type"] = "mine"
    values["auto_map"] = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    path.write_text(json.dumps(values), encoding="utf-8")
    marker = tmp_path / "ran"
    (model / "code.py").write_text(f"open({str(marker)!r}, 'w').close()", encoding="utf-8")
    (problem,) = problems_of(model, tmp_path)
    assert "no model's own code is run here" in problem
    assert not marker.exists()


def test_a_template_that_drops_the_answer_is_refused_once(model, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] != 'assistant' %}<|im_start|>{{ m['content'] }}"
        "{% endif %}{% endfor %}"
    )
    tokenizer.save_pretrained(model)
    (problem,) = problems_of(model, tmp_path)
    assert "does not write the answer" in problem


def test_a_tokenizer_of_another_model_is_refused(model, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens([f"<new{i}>" for i in range(200)])
    tokenizer.save_pretrained(model)
    (problem,) = problems_of(model, tmp_path)
    assert "vocabulary has" in problem and "another model" in problem


def test_a_model_that_cannot_be_trained_on_the_cluster_is_refused(
    tmp_path, tiny_model, monkeypatch, capsys
):
    nodes = [{"name": "small", "cpus": 8, "gpus": 2, "gpu_memory_gb": 0.1}]
    values = run_values(tiny_model, tmp_path / "results")
    values["cluster"] = {"gpus_per_worker": 1, "workers_per_job": 2, "node_types": nodes}
    config = write_config(tmp_path, values)
    for verb in ("validate", "plan"):
        code, _, err = run_cli(monkeypatch, capsys, verb, "-c", config)
        assert code == 2 and "cluster: training takes 0.2 GB a worker" in err
        assert "set training.max_tokens_per_pack to 2048" in err and "Traceback" not in err
    nodes[0]["gpu_memory_gb"] = 1
    config = write_config(tmp_path, values)
    code, out, err = run_cli(monkeypatch, capsys, "validate", "-c", config)
    assert code == 0, err
    assert "ready to run" in out


def test_what_calibrate_would_refuse_is_refused_here(tmp_path, tiny_model, monkeypatch, capsys):
    values = run_values(tiny_model, tmp_path / "results")
    values["tasks"] = {"calibration": ["name_gender"]}
    values["tracking"] = {"wandb_project": "mine"}
    zero = {"strategy": "deepspeed", "deepspeed_config": {"zero_optimization": {"stage": 2}}}
    values["training"] = {**values["training"], **zero}
    find = importlib.util.find_spec

    def find_without_extras(name, *package):
        return None if name in {"wandb", "deepspeed"} else find(name, *package)

    monkeypatch.setattr("taskeff.run.checks.find_spec", find_without_extras)
    config = write_config(tmp_path, values)
    code, _, err = run_cli(monkeypatch, capsys, "validate", "-c", config)
    assert code == 2
    for needle in ("at least 2", "needs the package 'wandb'", "needs the package 'deepspeed'"):
        assert needle in err


def test_parameters_are_counted_without_weights():
    shape = LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
    )
    # What the model card of Llama-3.1-8B gives as 8.03 billion.
    assert parameter_count(shape) == 8_030_261_248


def test_every_length_is_found_without_tokenising_most(tiny_model, tmp_path, monkeypatch):
    rows = [{"text": f"row {i}", "label": "a"} for i in range(300)]
    path = task_file(tmp_path, [*rows, {"text": "é" * 1100, "label": "b"}])
    values = run_values(tiny_model, tmp_path / "results", coslow={"n_examples": 8})
    values["tasks"] = {"calibration": [path, "name_gender"]}
    encoded = []
    whole = Prompter.encode

    def counted(self, text, *arguments, **named):
        encoded.append(text)
        return whole(self, text, *arguments, **named)

    monkeypatch.setattr(Prompter, "encode", counted)
    with pytest.raises(TaskeffError, match=r"train row 300 of mine\.jsonl: prompt and answer take"):
        make_plan(parse_config(values, "test"))
    assert len(encoded) < 20


def test_bundled_tasks_are_named_without_a_file():
    assert load_spec("name_gender").label == "task 'name_gender'"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"learning_rate": 1e-5, "masters": "none"}, True),
        ({"learning_rate": 1e-5}, False),
        ({"learning_rate": 1e-3, "masters": "none"}, False),
        ({"learning_rate": 1e-5, "masters": "none", "method": "lora"}, False),
    ],
)
def test_steps_that_bfloat16_loses_are_said(settings, said):
    values = run_values(Path("p"), Path("s"), training={**settings, "budgets": [8]})
    values["model"]["dtype"] = "bfloat16"
    note = rounding_note(parse_config(values, "test"), LlamaConfig(initializer_range=0.02))
    assert (note is not None) == said
    if note:
        # The share of weights of that deviation that such a step leaves where they are.
        torch.manual_seed(0)
        weights = (torch.randn(100_000) * 0.02).bfloat16()
        share = float((weights - 1e-5 * torch.ones(())).eq(weights).float().mean())
        stated = float(re.search(r"about (\d+)%", note)[1]) / 100
        assert stated == pytest.approx(share, abs=0.03)
