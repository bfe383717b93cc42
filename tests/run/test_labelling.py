"""A user's own task from the command line: select, label, score."""

import csv
import io
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from taskeff.config import CosLowConfig
from taskeff.coslow import result
from taskeff.coslow.data_set import read_confidences
from taskeff.errors import ConfigError, DataError, ModelError
from taskeff.models import load_model, model_config
from taskeff.run import labelling
from taskeff.run.labelling import score, select
from taskeff.storage import Store
from taskeff.tasks.from_data import write_task
from taskeff.tasks.task import load_spec, load_task
from tests.helpers import run_cli

FILES = {"jsonl": "to_annotate.jsonl", "label-studio": "to_annotate.json", "csv": "to_annotate.csv"}


@pytest.fixture
def cli(monkeypatch, capsys):
    return lambda *arguments: run_cli(monkeypatch, capsys, *arguments)


@pytest.fixture
def quick(monkeypatch):
    """The defaults of a test rather than those of a measurement."""
    whole = labelling.settings_of
    small = {"max_new_tokens": 4, "rank": 4}
    monkeypatch.setattr(labelling, "settings_of", lambda told, given: whole(told, small | given))


@pytest.fixture(scope="module")
def answers():
    task = load_task(load_spec("name_gender"), 0)
    return {e.text: e.target for e in (*task.train, *task.validation, *task.test)}


def fill(path, form, answers, n):
    """Label the first `n` rows of a hand-off file as a person would."""
    if form == "jsonl":
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for row in rows[:n]:
            row["label"] = answers[row["text"]]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif form == "csv":
        text = path.read_bytes().decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        for row in rows[:n]:
            row["label"] = answers[row["text"]]
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        tasks = json.loads(path.read_text("utf-8"))
        for task in tasks[:n]:
            value = {"choices": [answers[task["data"]["text"]]]}
            task["annotations"] = [{"result": [{"from_name": "label", "value": value}]}]
        path.write_text(json.dumps(tasks), encoding="utf-8")


@pytest.mark.parametrize("form", FILES)
def test_round_trip(cli, quick, tiny_model, tmp_path, answers, form):
    options = ("--model", tiny_model, "--out", tmp_path)
    select_options = ("--task", "name_gender", "--n", 10, "--pool-cap", 60, "--format", form)
    code, out, err = cli("select", *options, *select_options)
    assert code == 0, err
    assert f"label the 10 rows of {tmp_path / FILES[form]}" in out
    assert "drawn: 10 of 10 candidates, of confidence " in out
    labels = tmp_path / FILES[form]
    fill(labels, form, answers, 8)
    code, _, err = cli("score", *options, "--labels", labels)
    left = [row["id"] for row in json.loads((tmp_path / "selection.json").read_text())["rows"]][8:]
    assert code == 2
    assert f"2 of 10 rows have no label yet: {', '.join(left)}" in err
    fill(labels, form, answers, 10)
    code, out, err = cli("score", *options, "--labels", labels, "--json")
    assert code == 0, err
    found = json.loads(out)
    low, high = found["cos_low_low"], found["cos_low_high"]
    assert -1 <= low <= found["cos_low"] <= high <= 1
    assert found["n_examples"] == 10
    assert found["fingerprint"]["lora_targets"] == sorted(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    again = json.loads(cli("score", *options, "--json")[1])
    assert again == found  # `score` knows which file was handed out
    table = pq.read_table(tmp_path / "cosines.parquet").to_pydict()
    matrix = np.array([table[str(k)] for k in range(10)])
    assert np.median(matrix[np.triu_indices(10, 1)]) == found["cos_low"]
    assert min(table["norm"]) > 0


def test_a_published_pool_through_the_command_line(cli, quick, tiny_model, tmp_path):
    from tests.tiny_model import make_tokenizer

    tokenizer = make_tokenizer()
    words = ["cat", "dog", "red", "green", "bread", "rice", "saw", "hand", "coat", "rain", "cat"]
    rows = []
    for word in words:
        messages = [{"role": "user", "content": f"Is {word} an animal? Answer 0 or 1."}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        rows.append({"input_text": text})
    pool = tmp_path / "task_data_unannotated.json"
    pool.write_text(json.dumps(rows))
    options = ("--model", tiny_model, "--out", tmp_path / "out")
    code, _, err = cli("select", *options, "--pool", pool, "--n", 11, "--metric", "ppl")
    assert code == 0, err
    annotated = [
        {**row, "ground_truth": int(word in ("cat", "dog"))} for row, word in zip(rows, words)
    ]
    labels = tmp_path / "annotated.json"
    labels.write_text(json.dumps(annotated))
    code, out, err = cli("score", *options, "--labels", labels, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["task"] == "task_data_unannotated"
    assert found["duplicates"] == [["row-0", "row-10"]]
    assert found["balanced_cosine"] is not None
    assert "template_hash" not in found["fingerprint"]
    assert found["fingerprint"]["confidence_metric"] == "ppl"


def settings(**changes):
    return CosLowConfig(
        **{"n_examples": 8, "pool_cap": 40, "max_new_tokens": 4, "rank": 4, **changes}
    )


def test_what_select_records(tiny_model, tmp_path):
    seen = []
    select(
        model_config(str(tiny_model)),
        "name_gender",
        tmp_path,
        settings(quantile=0.5, strategy="random"),
        progress=seen.append,
    )
    record = json.loads((tmp_path / "selection.json").read_text())
    assert record["pool"]["rows"] == record["candidates"] == record["n_scored"] == 40
    assert record["quantile"] == 1
    assert record["fingerprint"]["strategy"] == "random"
    assert record["fingerprint"]["max_new_tokens"] == 4
    assert seen == [40]
    indices, values, _ = read_confidences(Store(str(tmp_path)))
    assert len(set(indices)) == 40
    assert all(value is not None for value in values)
    assert record["confidence"]["0.5"] == np.median(values)
    assert [record["confidence"][end] for end in ("0", "1")] == [min(values), max(values)]
    *_, told, drawn = labelling.pool_lines(record)
    assert f"{min(values):.2f} to {max(values):.2f}" in told
    assert f"half below {np.median(values):.2f}" in told
    assert drawn.startswith("drawn: 8 of 40 candidates, of confidence ")


def test_the_process_keeps_its_threads(tiny_model, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        select(model_config(str(tiny_model)), "name_gender", tmp_path, settings())
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)


def test_labels_are_not_overwritten(tiny_model, tmp_path):
    (tmp_path / "to_annotate.csv").write_text("labels")
    with pytest.raises(ConfigError, match=r"to_annotate\.csv is there already"):
        select(model_config(str(tiny_model)), "name_gender", tmp_path, settings(), form="csv")
    assert (tmp_path / "to_annotate.csv").read_text() == "labels"


def test_an_example_without_a_gradient_is_named(tiny_model, tmp_path, monkeypatch, answers):
    model = model_config(str(tiny_model))
    records = select(model, "name_gender", tmp_path, settings(n_examples=9))["rows"]
    fill(tmp_path / "to_annotate.jsonl", "jsonl", answers, 9)
    measure = result.gradient_gram

    def without_the_first(*arguments, **named):
        gram = measure(*arguments, **named)
        gram.matrix[0], gram.matrix[:, 0] = 0, 0
        return gram

    monkeypatch.setattr(result, "gradient_gram", without_the_first)
    found = score(model, tmp_path)
    assert found["excluded"] == [records[0]["id"]]
    assert found["n_examples"] == 8


def test_long_rows_are_cut_for_gradients_as_for_confidence(
    tiny_model, tmp_path, monkeypatch, answers
):
    loaded = load_model(model_config(str(tiny_model)), "cpu")
    loaded.config.max_position_embeddings = 48
    monkeypatch.setattr(labelling, "load_model", lambda config: loaded)
    monkeypatch.setattr("taskeff.models.load_model", lambda config, device: loaded)
    model = model_config(str(tiny_model))
    # Rows enough, but all too long: more of them would not help.
    said = r"0 rows with a confidence, .*; 40 rows have none; .* tokens exceed the 44 .*--on-long"
    with pytest.raises(DataError, match=said):
        select(model, "name_gender", tmp_path / "skip", settings())
    cut = tmp_path / "cut"
    select(model, "name_gender", cut, settings(on_long="truncate"))
    fill(cut / "to_annotate.jsonl", "jsonl", answers, 8)
    assert score(model, cut)["n_examples"] == 8


def test_another_model_than_select_used_is_refused(tiny_model, tmp_path, answers):
    model = model_config(str(tiny_model))
    select(model, "name_gender", tmp_path, settings())
    fill(tmp_path / "to_annotate.jsonl", "jsonl", answers, 8)
    with pytest.raises(ModelError, match="selected with model"):
        score(model.model_copy(update={"name": "other"}), tmp_path)


def test_targets_can_be_named_and_are_recorded(tiny_model, tmp_path, answers):
    model = model_config(str(tiny_model))
    select(model, "name_gender", tmp_path, settings(targets=("q_proj", "v_proj")))
    fill(tmp_path / "to_annotate.jsonl", "jsonl", answers, 8)
    assert score(model, tmp_path)["fingerprint"]["lora_targets"] == ["q_proj", "v_proj"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--task", "name_gender", "--strategy", "best"), "--strategy 'best': use low or random"),
        (("--task", "name_gender", "--metric", "p"), "--metric 'p': use mean_top_prob or ppl"),
        (("--task", "name_gender", "--on-long", "cut"), "--on-long 'cut': use skip or truncate"),
        (
            ("--task", "name_gender", "--format", "xml"),
            "--format 'xml': use jsonl, label-studio or",
        ),
        (("--task", "name_gender", "--n", "3"), "n_examples: Input should be greater"),
        (
            ("--task", "name_gender", "--pool-cap", "20"),
            "20 rows that can be used, fewer than the 32",
        ),
        (("--task", "name_gender", "--targets", "w_q"), "no linear layer is called w_q"),
        ((), "give either a task (--task), a file"),
        (("--text", "a"), "--text, --choices and --instruction go with --data"),
        (("--data", "x.csv"), "--text is missing: name the column"),
        (("--data", "x.csv", "--task", "name_gender"), "either a task (--task) or a file of rows"),
        (("--task", "name_gender", "--pool", "x.json"), "give either a task (--task), a file"),
    ],
)
def test_bad_options(cli, quick, tiny_model, tmp_path, options, message):
    code, _, err = cli("select", "--model", tiny_model, "--out", tmp_path, *options)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_half_precision_models_are_scored(tiny_model, tmp_path, answers):
    found = {}
    for dtype in ("float32", "bfloat16", "float16"):
        model = model_config(str(tiny_model), dtype)
        out = tmp_path / dtype
        select(model, "name_gender", out, settings())
        answered = tmp_path / "float32" / "to_annotate.jsonl"
        chosen = json.loads((tmp_path / "float32" / "selection.json").read_text())
        (out / "selection.json").write_text(json.dumps(chosen))
        if dtype == "float32":
            fill(answered, "jsonl", answers, 8)
        found[dtype] = score(model, out, answered)["cos_low"]
    assert torch.isfinite(torch.tensor(list(found.values()))).all()
    assert abs(found["bfloat16"] - found["float32"]) < 0.02
    assert abs(found["float16"] - found["float32"]) < 0.005


def test_select_and_score_take_the_checkpoints_own_precision(
    cli, quick, tiny_model, tmp_path, answers
):
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    stored = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(stored | {"dtype": "bfloat16"}))
    options, out = ("--task", "name_gender", "--n", 8, "--pool-cap", 40), tmp_path / "out"
    code, _, err = cli("select", "--model", model, "--out", out, *options)
    assert code == 0, err
    assert json.loads((out / "selection.json").read_text())["fingerprint"]["dtype"] == "bfloat16"
    fill(out / FILES["jsonl"], "jsonl", answers, 8)
    code, said, err = cli("score", "--model", model, "--out", out, "--json")
    assert code == 0, err
    assert json.loads(said)["fingerprint"]["dtype"] == "bfloat16"


def test_a_pool_is_checked_without_labels(cli, tiny_model, tmp_path):
    lines = ["text", *(f"row {i}" for i in range(40)), "row 3", "a <|im_end|> b", "word " * 3000]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    task = write_task(tmp_path, str(tmp_path / "t.csv"), "text", ("yes", "no"))
    code, out, err = cli("validate", "--task", task, "--model", tiny_model)
    assert code == 0, err
    assert "43 rows, 41 used; left out: 1 too long, 1 that repeat another" in out
    assert "line 44" in out and "prompt tokens exceed the 2018 there is room for" in out
    assert "note: 1 rows hold markers of the model's own" in out
    assert "row 0" in out and "⟦" not in out
    (tmp_path / "t.csv").write_text("text\n" + "word " * 3000 + "\n")
    code, _, err = cli("validate", "--task", task, "--model", tiny_model)
    assert code == 2
    assert "1 too long" in err and "32 are to be labelled" in err
