"""The task files of configs/tasks over rows with the columns of their sources."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import datasets
import pytest
from transformers import AutoTokenizer

from taskeff.config_file import load_config
from taskeff.errors import DataError
from taskeff.tasks.prompts import Prompter
from taskeff.tasks.task import TaskSpec, load_spec, load_task, read_specs
from tests.tasks.hub import HUB, rows, write_hub

REPOSITORY = Path(__file__).parents[2]
FILES = sorted((REPOSITORY / "configs" / "tasks").glob("*.yaml"))
GENERATION = {"squad", "coqa", "trivia_qa"}
MODELS = ["llama-3.1-8b-instruct", "mistral-7b-instruct-v0.3", "qwen2.5-14b-instruct"]


def spec_of(name: str) -> TaskSpec:
    return load_spec(REPOSITORY / "configs" / "tasks" / f"{name}.yaml")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hub(tmp_path_factory.mktemp("hub"))


@pytest.fixture
def in_hub(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hub)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)


def small(spec: TaskSpec) -> TaskSpec:
    """The task with few rows: what is tested is the file, not the size."""
    update = {"test_size": 0.2, "validation_size": 0.2}
    if "rows" in spec.dataset_kwargs:
        update["dataset_kwargs"] = {**spec.dataset_kwargs, "rows": 100}
    return spec.model_copy(update=update)


def test_all_published_tasks_and_three_of_generation_are_there():
    assert len(FILES) == 30 + len(GENERATION)
    specs, problems = read_specs([str(path) for path in FILES])
    assert not problems
    assert [spec.task for spec in specs] == [path.stem for path in FILES]
    hub_tasks = {s.task for s in specs if not s.dataset_path.startswith("builder:")}
    assert hub_tasks == set(HUB)


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_the_file_reads_its_source(name: str, in_hub: None, tiny_model: Path):
    spec = spec_of(name)
    task = load_task(small(spec), seed=0)
    everything = [*task.train, *task.validation, *task.test]
    texts = [example.text for example in everything]
    assert len(set(texts)) == len(texts)
    for text in texts:
        assert "{" not in text and "None" not in text and "HIDDEN" not in text
    prompter = Prompter(AutoTokenizer.from_pretrained(tiny_model), spec.description)
    encoded = prompter.encode_example(everything[0], end_of_turn=True)
    assert encoded.answer_ids


@pytest.mark.parametrize("name", [path.stem for path in FILES if path.stem not in GENERATION])
def test_answers_are_the_labels_that_the_instruction_lists(name: str, in_hub: None):
    spec = spec_of(name)
    assert spec.doc_to_choice and len(set(spec.doc_to_choice)) == len(spec.doc_to_choice)
    assert spec.metric == "exact_match"
    for choice in spec.doc_to_choice:
        assert choice in spec.description
    task = load_task(small(spec), seed=0)
    answers = {example.target for example in (*task.train, *task.test)}
    # The stand-in for banking77 names two of its labels; every other one has them all.
    assert answers == (
        {"activate_my_card", "Refund_not_showing_up"}
        if name == "banking77"
        else set(spec.doc_to_choice)
    )


@pytest.mark.parametrize("name", sorted(GENERATION))
def test_generation_tasks_are_scored_by_words(name: str, in_hub: None):
    spec = spec_of(name)
    assert spec.metric == "token_f1" and spec.doc_to_choice is None
    assert all(example.target for example in load_task(small(spec), seed=0).test)


@pytest.mark.parametrize(
    ("name", "text", "target"),
    [
        (
            "circa",
            "Situation: context train 3\nQuestion: question-X train 3\nAnswer: answer-Y train 3",
            "Yes, subject to some conditions",
        ),
        (
            "commonsense_qa",
            "Question: question train 3\nA: text train 0 3\nB: text train 1 3\nC: text train 2 3\n"
            "D: text train 3 3\nE: text train 4 3",
            "D",
        ),
        (
            "mmlu",
            "Subject: subject test 3\nQuestion: question test 3\nA: choices test 0 3\n"
            "B: choices test 1 3\nC: choices test 2 3\nD: choices test 3 3",
            "D",
        ),
        (
            "medmcqa",
            "Question: question train 3\na: opa train 3\nb: opb train 3\nc: opc train 3\n"
            "d: opd train 3",
            "d",
        ),
        ("mrpc", "Sentence 1: sentence1 train 3\nSentence 2: sentence2 train 3", "equivalent"),
        ("overruling", "Sentence: sentence1 train 3", "yes"),
        ("sports_understanding", "inputs train 3", "implausible"),
        ("trivia_qa", "Question: question train 3", "value train 3"),
        ("coqa", "Story: story train 3\nQuestion: questions train 0 3", "input_text train 0 3"),
    ],
)
def test_golden_renderings(name: str, text: str, target: str, in_hub: None):
    task = load_task(small(spec_of(name)), seed=0)
    everything = {e.text: e.target for e in (*task.train, *task.validation, *task.test)}
    assert everything[text] == target


def test_rows_without_a_label_are_left_out_where_the_file_says_so(
    in_hub: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spec, hub = spec_of("circa"), HUB["circa"]
    monkeypatch.chdir(tmp_path)
    hidden = replace(hub, hidden=("unlabelled",))
    both = datasets.concatenate_datasets([rows(hub, "train", 20), rows(hidden, "unlabelled", 5)])
    folder = tmp_path / hub.id
    folder.mkdir(parents=True)
    both.to_parquet(folder / "train.parquet")
    task = load_task(small(spec), seed=0)
    assert len(task.train) + len(task.validation) + len(task.test) == 20
    with pytest.raises(DataError, match=r"train row 20: doc_to_target renders an empty answer"):
        load_task(small(spec.model_copy(update={"doc_to_keep": None})), seed=0)
    unclear = spec.model_copy(update={"doc_to_keep": "{{goldstandard2}}"})
    with pytest.raises(DataError, match="doc_to_keep renders '0'; make it a comparison"):
        load_task(small(unclear), seed=0)


def test_a_missing_column_is_named(in_hub: None):
    spec = spec_of("sst2").model_copy(update={"doc_to_text": "{{text}}"})
    with pytest.raises(
        DataError, match=r"'sst2'.*row 0: doc_to_text: 'text' is undefined.*sentence"
    ):
        load_task(small(spec), seed=0)


def test_every_ceiling_says_where_it_is_from():
    specs = [spec_of(path.stem) for path in FILES]
    known = {spec.task for spec in specs if spec.ceiling is not None}
    assert {spec.task for spec in specs} - known == {*GENERATION, "mnist_ascii"}
    for spec in specs:
        assert bool(spec.metadata.get("ceiling")) == (spec.task in known)
        by_rule = spec.dataset_path.startswith("builder:")
        if spec.task in known and by_rule:
            assert spec.ceiling == 1 and "rule" in spec.metadata["ceiling"]


@pytest.mark.parametrize("name", MODELS)
def test_configurations_name_all_tasks_and_the_published_recipe(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(REPOSITORY)
    config = load_config(f"configs/{name}.yaml")
    assert config.model.name == name
    listed = [*config.tasks.calibration, *config.tasks.held_out]
    assert {Path(path).stem for path in listed} == {path.stem for path in FILES}
    assert set(config.tasks.held_out) == {f"configs/tasks/{task}.yaml" for task in GENERATION}
    assert [spec.task for spec in read_specs(listed)[0]] == [Path(path).stem for path in listed]
    training = config.training
    assert training.method == "full" and training.learning_rate == 1e-5
    assert training.warmup_ratio == 0.1 and training.max_steps == 500
    assert training.early_stopping and training.early_stopping.every_steps == 4
    assert training.early_stopping.patience == 10
    assert config.cap == 5000 and config.evaluation.test_cap == 5000
    assert config.tasks.short == "stop" and config.curve.ceiling == "human"
    assert training.batch_size % config.cluster.workers_per_job == 0
