"""Generate on the test split and score: strictly, and restricted to the task's own labels."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
from transformers import PreTrainedModel

from taskeff.generate import greedy
from taskeff.tasks.metrics import score
from taskeff.tasks.prompts import Prompter
from taskeff.tasks.task import Example, TaskSpec


@dataclass(frozen=True)
class Prediction:
    """One test row's answer; `choice` is the best of the task's labels, where it lists them."""

    id: str
    target: str
    text: str
    choice: str | None


@dataclass(frozen=True)
class Evaluation:
    """Scores in [0, 1] by the task's metric.

    `label_score` scores the label that greedy decoding restricted to the task's labels gives, so
    that learning the answer's format is told apart from learning the task; None without labels.
    """

    score: float
    label_score: float | None
    n_test: int
    seconds: float
    predictions: list[Prediction] = field(repr=False)

    def table(self) -> pa.Table:
        """One row per test example: id, target, text, choice."""
        return pa.Table.from_pylist([vars(p) for p in self.predictions], schema=_SCHEMA)


_SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "target", "text", "choice")])


def evaluate(
    model: PreTrainedModel,
    prompter: Prompter,
    spec: TaskSpec,
    examples: Sequence[Example],
    *,
    max_tokens: int,
) -> Evaluation:
    """Score `model` on labelled test `examples` by pure greedy decoding.

    Args:
        max_tokens: tokens that go through the model at once.
    """
    started = time.perf_counter()
    prompts = [prompter.prompt_ids(example.text) for example in examples]
    choices = prompter.choice_ids(spec.doc_to_choice) if spec.doc_to_choice else None
    generations = greedy(
        model,
        prompts,
        max_new_tokens=spec.max_new_tokens,
        stop_ids=prompter.stop_ids(),
        choices=choices,
        max_tokens=max_tokens,
    )
    predictions = [
        Prediction(
            id=example.id,
            target=example.target or "",
            text=prompter.decode(generation.tokens),
            choice=spec.doc_to_choice[generation.choice]
            if spec.doc_to_choice and generation.choice is not None
            else None,
        )
        for example, generation in zip(examples, generations, strict=True)
    ]
    targets = [p.target for p in predictions]
    labels = [p.choice for p in predictions if p.choice is not None]
    return Evaluation(
        score=score(spec.metric, [p.text for p in predictions], targets),
        label_score=score(spec.metric, labels, targets) if len(labels) == len(targets) else None,
        n_test=len(examples),
        seconds=time.perf_counter() - started,
        predictions=predictions,
    )
