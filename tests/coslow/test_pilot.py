"""`score --kernel`: from labelled rows of a selection to a pilot without a fine-tune."""

import json

import numpy as np
import pytest

from taskeff.config import CosLowConfig
from taskeff.coslow import pilot
from taskeff.coslow.gradients import LoRA, gradient_gram
from taskeff.coslow.kernel import kernel_pilot
from taskeff.coslow.pilot import measure_pilot, rows_of, summed
from taskeff.errors import DataError
from taskeff.models import load_model, load_tokenizer, model_config
from taskeff.tasks.task import Example, load_spec, load_task
from tests.helpers import run_cli


@pytest.fixture(scope="module")
def loaded(tiny_model):
    config = model_config(str(tiny_model), "float32")
    return load_model(config), load_tokenizer(config)


def selection(name, **settings):
    spec = load_spec(name)
    return {
        "description": spec.description,
        "choices": list(spec.doc_to_choice) if spec.doc_to_choice else None,
        "rendered": False,
        "max_new_tokens": 4,
        "settings": CosLowConfig(rank=4, **settings).model_dump(mode="json"),
    }


def train(name, n):
    return load_task(load_spec(name), 0).train[:n]


def test_the_pilot_is_the_kernel_on_the_signals_own_gradients(loaded):
    model, tokenizer = loaded
    given = selection("part_of_speech", seed=3)
    rows = rows_of(given, train("part_of_speech", 12), model.config, tokenizer)
    matrix, _ = summed(gradient_gram(model, rows.examples, LoRA(4, 32, 3)), rows.lengths)
    expected = kernel_pilot(matrix, rows.labels, rows.answers, ids=rows.ids, seed=3)
    found = measure_pilot(given, rows, model)
    assert found == expected
    assert found.n_offered == 4


def test_every_row_is_offered_every_answer_however_many(loaded, monkeypatch):
    model, tokenizer = loaded
    given = selection("phrase_language")
    rows = rows_of(given, train("phrase_language", 12), model.config, tokenizer)
    asked = []

    def counted(model, examples, settings):
        asked.append(examples)
        return gradient_gram(model, examples, LoRA(4, 32, 0))

    monkeypatch.setattr(pilot, "gram_of", counted)
    found = measure_pilot(given, rows, model)
    assert found.n_offered == len(found.answers) == len(found.confusion) == 10
    assert len(asked[0]) == 12 * 10


def test_prompts_are_cut_like_the_signals(loaded):
    model, tokenizer = loaded
    examples = [Example(f"r{i}", "word " * 2400, ("female", "male")[i % 2]) for i in range(8)]
    whole = rows_of(selection("name_gender"), examples, model.config, tokenizer)
    cut = rows_of(selection("name_gender", on_long="truncate"), examples, model.config, tokenizer)
    room = model.config.max_position_embeddings - 4
    assert len(whole.examples[0].prompt_ids) > room
    assert len(cut.examples[0].prompt_ids) == room


def test_what_there_is_no_pilot_for(loaded):
    model, tokenizer = loaded

    def refused(match, name, examples):
        with pytest.raises(DataError, match=match) as caught:
            rows_of(selection(name), examples, model.config, tokenizer)
        assert "\n" not in str(caught.value)

    refused("this task lists none", "past_tense", train("past_tense", 8))
    one = [Example(f"r{i}", "Ann", "female") for i in range(8)]
    refused("every row has the label 'female'", "name_gender", one)
    refused("5 labelled rows for 2 answers", "name_gender", train("name_gender", 5))


def test_on_the_command_line(monkeypatch, capsys, tiny_model, tmp_path):
    def cli(*arguments):
        return run_cli(monkeypatch, capsys, *arguments)

    whole = CosLowConfig
    monkeypatch.setattr(
        "taskeff.config.CosLowConfig",
        lambda **given: whole(**{"max_new_tokens": 4, "rank": 4, **given}),
    )
    options = ("--model", tiny_model, "--out", tmp_path)
    code, _, err = cli("select", *options, "--task", "name_gender", "--n", 10, "--pool-cap", 60)
    assert code == 0, err
    file = tmp_path / "to_annotate.jsonl"
    answers = {row.text: row.target for row in load_task(load_spec("name_gender"), 0).train}
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]

    def fill(label):
        text = "".join(json.dumps({**row, "label": label(row)}) + "\n" for row in rows)
        file.write_text(text, encoding="utf-8")

    fill(lambda row: "male")
    code, _, err = cli("score", *options, "--kernel")
    assert code == 2
    assert "every row has the label 'male'" in err
    assert not (tmp_path / "coslow.json").exists()
    fill(lambda row: answers[row["text"]])
    plain = json.loads(cli("score", *options, "--json")[1])
    code, out, err = cli("score", *options, "--kernel", "--json")
    assert code == 0, err
    found = json.loads(out)
    kernel = found.pop("kernel")
    assert found == plain  # CoS-Low is what it is without
    assert json.loads((tmp_path / "coslow.json").read_text())["kernel"] == kernel
    assert [point["n"] for point in kernel["curve"]] == [4, 8, 9]
    right = [m > 0 for m in kernel["margins"]]
    assert kernel["accuracy"] == np.mean(right)
    code, out, _ = cli("score", *options, "--kernel")
    assert f"would get {kernel['accuracy']:.2f} of the others right" in out
    assert "kernel           {" not in out
