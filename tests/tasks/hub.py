"""Stand-ins for the hub's data sets: few rows, the same columns, features and splits.

`write_hub(folder)` lays them out as Parquet below the ids that the task files name. With `folder`
as the working directory, `datasets.load_dataset` finds those ids there and asks no hub.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from datasets import ClassLabel, Dataset, Features, List, Value

TEXT, WHOLE = Value("string"), Value("int64")
NLI = ClassLabel(names=["entailment", "neutral", "contradiction"])
ENTAILED = ClassLabel(names=["entailment", "not_entailment"])
FALSE_TRUE = ClassLabel(names=["False", "True"])
LETTERS = ClassLabel(names=["A", "B", "C", "D"])
HIDDEN = -1


@dataclass(frozen=True)
class HubSet:
    """One configuration of one data set; unlabelled splits carry -1 for every class label."""

    id: str
    columns: dict[str, Any]
    splits: tuple[str, ...] = ("train", "validation", "test")
    config: str = "default"
    hidden: tuple[str, ...] = ()


GLUE = {"hidden": ("test",), "id": "nyu-mll/glue"}
SUPER = {"hidden": ("test",), "id": "aps/super_glue"}
HUB = {
    "ade_corpus_v2_classification": HubSet(
        "ade-benchmark-corpus/ade_corpus_v2",
        {"text": TEXT, "label": ClassLabel(names=["Not-Related", "Related"])},
        ("train",),
        "Ade_corpus_v2_classification",
    ),
    "anli": HubSet(
        "facebook/anli",
        {"uid": TEXT, "premise": TEXT, "hypothesis": TEXT, "label": NLI, "reason": TEXT},
        ("train_r1", "dev_r1", "test_r1"),
    ),
    "banking77": HubSet(
        "legacy-datasets/banking77",
        {"text": TEXT, "label": ClassLabel(names=["activate_my_card", "Refund_not_showing_up"])},
        ("train", "test"),
    ),
    "boolq": HubSet(
        columns={"question": TEXT, "passage": TEXT, "idx": WHOLE, "label": FALSE_TRUE},
        config="boolq",
        **SUPER,
    ),
    "circa": HubSet(
        "google-research-datasets/circa",
        {
            "context": TEXT,
            "question-X": TEXT,
            "answer-Y": TEXT,
            "goldstandard2": ClassLabel(
                names=[
                    "Yes",
                    "No",
                    "In the middle, neither yes nor no",
                    "Yes, subject to some conditions",
                    "Other",
                ]
            ),
        },
        ("train",),
    ),
    "commonsense_qa": HubSet(
        "tau/commonsense_qa",
        {"question": TEXT, "choices": {"label": List(TEXT), "text": List(TEXT)}, "answerKey": TEXT},
    ),
    "fig_qa": HubSet(
        "nightingal3/fig-qa",
        {"startphrase": TEXT, "ending1": TEXT, "ending2": TEXT, "labels": WHOLE},
    ),
    "high": HubSet(
        "ehovy/race",
        {"article": TEXT, "question": TEXT, "options": List(TEXT), "answer": TEXT},
        config="high",
    ),
    "medmcqa": HubSet(
        "openlifescienceai/medmcqa",
        {
            "question": TEXT,
            "opa": TEXT,
            "opb": TEXT,
            "opc": TEXT,
            "opd": TEXT,
            "cop": ClassLabel(names=["a", "b", "c", "d"]),
        },
        hidden=("test",),
    ),
    "mmlu": HubSet(
        "cais/mmlu",
        {"subject": TEXT, "question": TEXT, "choices": List(TEXT), "answer": LETTERS},
        ("test", "validation", "dev"),
        "all",
    ),
    "mnli": HubSet(
        columns={"premise": TEXT, "hypothesis": TEXT, "label": NLI, "idx": WHOLE},
        splits=("train", "validation_matched", "validation_mismatched"),
        config="mnli",
        id="nyu-mll/glue",
    ),
    "mrpc": HubSet(
        "nyu-mll/glue",
        {
            "sentence1": TEXT,
            "sentence2": TEXT,
            "label": ClassLabel(names=["not_equivalent", "equivalent"]),
        },
        config="mrpc",
    ),
    "overruling": HubSet(
        "LawInformedAI/overruling", {"sentence1": TEXT, "label": WHOLE}, ("train",)
    ),
    "qnli": HubSet(
        columns={"question": TEXT, "sentence": TEXT, "label": ENTAILED}, config="qnli", **GLUE
    ),
    "qqp": HubSet(
        columns={
            "question1": TEXT,
            "question2": TEXT,
            "label": ClassLabel(names=["not_duplicate", "duplicate"]),
        },
        config="qqp",
        **GLUE,
    ),
    "quail": HubSet(
        "textmachinelab/quail",
        {"context": TEXT, "question": TEXT, "answers": List(TEXT), "correct_answer_id": WHOLE},
        ("train", "validation", "challenge"),
    ),
    "rte": HubSet(
        columns={"premise": TEXT, "hypothesis": TEXT, "label": ENTAILED}, config="rte", **SUPER
    ),
    "sports_understanding": HubSet(
        "tasksource/bigbench",
        {"inputs": TEXT, "targets": List(TEXT), "multiple_choice_targets": List(TEXT)},
        ("train", "validation"),
        "sports_understanding",
    ),
    "sst2": HubSet(
        columns={"sentence": TEXT, "label": ClassLabel(names=["negative", "positive"])},
        config="sst2",
        **GLUE,
    ),
    "toxicchat0124": HubSet(
        "lmsys/toxic-chat",
        {"user_input": TEXT, "model_output": TEXT, "toxicity": WHOLE, "jailbreaking": WHOLE},
        ("train", "test"),
        "toxicchat0124",
    ),
    "wic": HubSet(
        columns={"word": TEXT, "sentence1": TEXT, "sentence2": TEXT, "label": FALSE_TRUE},
        config="wic",
        **SUPER,
    ),
    "squad": HubSet(
        "rajpurkar/squad",
        {
            "context": TEXT,
            "question": TEXT,
            "answers": {"text": List(TEXT), "answer_start": List(Value("int32"))},
        },
        ("train", "validation"),
        "plain_text",
    ),
    "coqa": HubSet(
        "stanfordnlp/coqa",
        {"story": TEXT, "questions": List(TEXT), "answers": {"input_text": List(TEXT)}},
        ("train", "validation"),
    ),
    "trivia_qa": HubSet(
        "mandarjoshi/trivia_qa",
        {"question": TEXT, "answer": {"value": TEXT, "aliases": List(TEXT)}},
        config="rc.nocontext",
    ),
}
WORDS = {"answerKey": "ABCDE", "answer": "ABCD"}
WHOLE_RANGES = {"correct_answer_id": 4}


def _value(column: str, feature: Any, row: int, tag: str, hidden: bool) -> Any:
    if isinstance(feature, dict):
        return {name: _value(name, inner, row, tag, hidden) for name, inner in feature.items()}
    if isinstance(feature, ClassLabel):
        return HIDDEN if hidden else row % feature.num_classes
    if column == "targets":
        return [("plausible", "implausible")[row % 2]]
    if column == "label" and isinstance(feature, List):
        return list("ABCDE")
    if isinstance(feature, List):
        inner = feature.feature
        return [_value(column, inner, row, f"{tag} {i}", hidden) for i in range(_length(column))]
    if feature == WHOLE:
        return row % WHOLE_RANGES.get(column, 2)
    if feature == Value("int32"):
        return row
    if column in WORDS:
        return WORDS[column][row % len(WORDS[column])]
    return f"{column} {tag} {row}"


def _length(column: str) -> int:
    return 5 if column == "text" else 4


def rows(hub: HubSet, split: str, n: int) -> Dataset:
    """`n` made-up rows of one split; every label occurs."""
    hidden = split in hub.hidden
    made = [
        {column: _value(column, f, row, split, hidden) for column, f in hub.columns.items()}
        for row in range(n)
    ]
    return Dataset.from_list(made, features=Features(hub.columns))


def write_hub(folder: Path, n: int = 60, names: Iterable[str] = tuple(HUB)) -> Path:
    """The data sets `names` of `HUB` below `folder`, `n` rows in each split."""
    configs: dict[str, list[Any]] = {}
    for hub in (HUB[name] for name in names):
        files = []
        for split in hub.splits:
            path = Path(hub.config) / f"{split}.parquet"
            (folder / hub.id / hub.config).mkdir(parents=True, exist_ok=True)
            rows(hub, split, n).to_parquet(folder / hub.id / path)
            files.append({"split": split, "path": path.as_posix()})
        configs.setdefault(hub.id, []).append({"config_name": hub.config, "data_files": files})
    for id_, listed in configs.items():
        card = yaml.safe_dump({"configs": listed})
        (folder / id_ / "README.md").write_text(f"---\n{card}---\n", encoding="utf-8")
    return folder
