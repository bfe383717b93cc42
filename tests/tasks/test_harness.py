"""Task files of lm-evaluation-harness itself: what they become here, and what is refused."""

import logging
from pathlib import Path

import pytest
import yaml

from taskeff.errors import DataError
from taskeff.tasks import harness
from taskeff.tasks.readers import SourceRow
from taskeff.tasks.rows import render_row
from taskeff.tasks.spec import load_spec
from tests.helpers import run_cli

FILES = Path(__file__).parent / "harness"
FOUR = {"choices": ["w", "x", "y", "z"], "question": " Which? "}
# Per file: rows of its data set, and the answers that the harness counts as right.
LOADED = {
    "boolq": [({"passage": "P", "question": "q", "label": 1}, "yes")],
    "boolq-seq2seq": [({"passage": "P", "question": "q", "label": 0}, "no")],
    "sst2": [
        ({"sentence": "fine", "label": 1}, "positive"),
        ({"sentence": "bad", "label": 0}, "negative"),
    ],
    "rte": [({"sentence1": "A", "sentence2": "B", "label": 0}, "True")],
    "anli_r1": [({"premise": "A", "hypothesis": "B", "label": 1}, "Neither")],
    "commonsense_qa": [
        ({"question": "q", "choices": {"text": list("vwxyz")}, "answerKey": "C"}, "C")
    ],
    "mmlu/mmlu_anatomy": [({**FOUR, "answer": 3}, "D")],
    "bbh/boolean_expressions": [({"input": "not True is", "target": "False"}, "False")],
}
REFUSED = {
    "arc_easy": "doc_to_text does not show",
    "piqa": r"doc_to_text does not show; .* show \[sol1, sol2\] in doc_to_text",
    "cola": "none of mcc is computed here",
    "copa": "doc_to_text is !function utils.doc_to_text: no task's code is run",
    "gsm8k": "exact_match compares what is left after",
    "hellaswag": "process_docs: rows are read as they are",
    "squadv2": "class: a task that is Python code",
    "wikitext": "output_type loglikelihood_rolling",
}


def row(values):
    return SourceRow(0, "row 0", values)


def written(folder, **fields):
    values = {
        "task": "mine",
        "dataset_path": "owner/name",
        "training_split": "train",
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_target": "label",
        "doc_to_choice": ["no", "yes"],
        **fields,
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize("name", LOADED)
def test_a_file_gives_the_answers_it_gives_there(name):
    spec = load_spec(FILES / f"{name}.yaml")
    for values, answer in LOADED[name]:
        text, target = render_row(spec, row(values))
        assert target == answer and text
        if spec.doc_to_choice:
            assert target in spec.doc_to_choice


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_would_be_another_task_is_refused(name):
    with pytest.raises(DataError, match=REFUSED[name]) as refused:
        load_spec(FILES / f"{name}.yaml")
    assert str(FILES / f"{name}.yaml") in str(refused.value)


def test_every_file_is_tried():
    tried = {*LOADED, *REFUSED, "nq_open"}
    assert {p.relative_to(FILES).with_suffix("").as_posix() for p in FILES.rglob("*.yaml")} == tried


def test_several_right_answers_are_refused_at_the_row():
    spec = load_spec(FILES / "nq_open.yaml")
    with pytest.raises(DataError, match=r"renders a list, \['blue', 'azure'\]"):
        render_row(spec, row({"question": "q", "answer": ["blue", "azure"]}))


def test_text_that_looks_like_a_list_is_an_answer(tmp_path):
    path = written(tmp_path, output_type="generate_until", doc_to_choice=None)
    assert render_row(load_spec(path), row({"text": "t", "label": "[1, 2]"}))[1] == "[1, 2]"


@pytest.mark.parametrize("metric", ["exact_match", "f1"])
def test_answers_of_several_lines_are_refused_where_one_would_count(tmp_path, metric):
    path = written(
        tmp_path,
        output_type="generate_until",
        doc_to_choice=None,
        metric_list=[{"metric": metric}],
    )
    rows = row({"text": "t", "label": "first\nsecond"})
    if metric == "f1":  # of shared words
        assert render_row(load_spec(path), rows)[1] == "first\nsecond"
        return
    with pytest.raises(DataError, match="several lines, and exact_match compares the first"):
        render_row(load_spec(path), rows)


@pytest.mark.parametrize("label", [-1, 2, "maybe"])
def test_an_index_out_of_the_answers_is_never_an_answer(tmp_path, label):
    with pytest.raises(DataError, match="not in doc_to_choice"):
        render_row(load_spec(written(tmp_path)), row({"text": "t", "label": label}))


@pytest.mark.parametrize(
    ("target", "values"),
    [
        ("label", {"label": 2}),
        ("{{label}}", {"label": "2"}),
        ("{{keys.index(key)}}", {"keys": ["A", "B", "C"], "key": "C"}),
        (2, {}),
        ("right", {"right": "z"}),
    ],
)
def test_answers_that_the_question_shows_may_differ_by_row(tmp_path, target, values):
    path = written(
        tmp_path,
        doc_to_text="{{text}} {{options | join(', ')}}",
        doc_to_choice="options",
        doc_to_target=target,
    )
    spec = load_spec(path)
    assert spec.doc_to_choice is None
    found = render_row(spec, row({"text": "t", "options": ["x", "y", "z"], **values}))
    assert found == ("t x, y, z", "z")


def test_columns_whose_names_are_no_words(tmp_path):
    spec = load_spec(written(tmp_path, doc_to_text="the text", doc_to_target="is it"))
    assert render_row(spec, row({"the text": "t", "is it": 1})) == ("t", "yes")


def test_quotes_and_braces_in_answers_stay_text(tmp_path):
    answers = ['a "b" \\ é', "{{x}}"]
    spec = load_spec(written(tmp_path, doc_to_choice=answers))
    for number, answer in enumerate(answers):
        assert render_row(spec, row({"text": "t", "label": number}))[1] == answer


def test_scores_are_taken_where_the_harness_takes_them():
    assert load_spec(FILES / "sst2.yaml").splits == ["train", "validation"]
    assert load_spec(FILES / "sst2.yaml").test_split == "validation"
    anli = load_spec(FILES / "anli_r1.yaml")
    assert anli.splits == ["train_r1", "dev_r1", "test_r1"]
    only_test = load_spec(FILES / "mmlu/mmlu_anatomy.yaml")
    assert only_test.splits == ["test"]


def test_the_limit_of_an_answer_is_taken(tmp_path):
    path = written(tmp_path, output_type="generate_until", generation_kwargs={"max_gen_toks": 7})
    assert load_spec(path).max_new_tokens == 7


def test_what_bears_on_no_label_is_said_once(caplog):
    harness._say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            load_spec(FILES / "bbh/boolean_expressions.yaml")
    (said,) = caplog.messages
    for words in ("no label hangs on it: filter_list", "'test' is split", "case and one full stop"):
        assert words in said
    caplog.clear()
    load_spec(FILES / "sst2.yaml")
    assert not caplog.messages


def test_included_fields_give_way_to_the_files_own(tmp_path):
    (tmp_path / "base").write_text("task: base\ndoc_to_text: '{{base}}'\ndataset_path: a/b\n")
    (tmp_path / "more").write_text("include: base\ndoc_to_target: answer\ndataset_path: c/d\n")
    path = tmp_path / "own.yaml"
    path.write_text("include: [base, more]\ntask: own\ntraining_split: train\n")
    spec = load_spec(path)
    assert (spec.task, spec.dataset_path, spec.doc_to_text) == ("own", "c/d", "{{base}}")
    assert spec.doc_to_target == "{{answer}}"
    (tmp_path / "base").write_text("include: more\n")
    with pytest.raises(DataError, match="includes itself"):
        load_spec(path)
    path.write_text("include: gone\n")
    with pytest.raises(DataError, match=r"include: .*gone cannot be read"):
        load_spec(path)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"doc_to_target": ["a", "b"]}, "lists several right answers"),
        ({"description": "About {{subject}}"}, "description: it is the same for every row"),
        ({"metric_list": ["acc"]}, "a field is not of its kind"),
        ({"group": "all"}, "a group is many tasks"),
        ({"no_such_word": 1}, "no_such_word"),
        ({"doc_to_choice": [True, False]}, "write them in quotes"),
    ],
)
def test_other_words_are_one_clear_line(tmp_path, fields, why):
    with pytest.raises(DataError, match=why):
        load_spec(written(tmp_path, **fields))


def test_init_writes_our_own_file(monkeypatch, capsys, tmp_path):
    source = FILES / "mmlu/mmlu_anatomy.yaml"
    arguments = ("init", "--from-harness", source, "--out", tmp_path)
    code, out, _ = run_cli(monkeypatch, capsys, *arguments)
    mine = tmp_path / "mmlu_anatomy.yaml"
    assert code == 0 and str(mine) in out
    assert load_spec(mine).model_dump() == load_spec(source).model_dump()
    assert not {"include", "metric_list", "output_type"} & yaml.safe_load(mine.read_text()).keys()
    mine.write_text("changed")
    assert run_cli(monkeypatch, capsys, *arguments)[0] == 2
    assert mine.read_text() == "changed"
