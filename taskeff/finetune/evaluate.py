"""Generate on the test split and score: strictly, and restricted to the task's own labels."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import pyarrow as pa
from accelerate.utils import gather_object
from transformers import PreTrainedModel

from taskeff.errors import ClusterError, TaskeffError
from taskeff.finetune.adapters import merged
from taskeff.finetune.strategy import Strategy
from taskeff.finetune.workers import deal
from taskeff.lm.generate import Generation, greedy
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


def _shared(
    lengths: Sequence[int],
    answer: Callable[[Sequence[int]], list[Generation]],
    strategy: Strategy,
) -> list[Generation]:
    """Every row's generation, in order; each worker answers its part of them."""
    workers = strategy.workers
    mine = deal(lengths, workers.num_processes)[workers.process_index]
    error, generations = None, []
    try:
        with strategy.in_step(), strategy.computing():
            generations = answer(mine)
    except TaskeffError as caught:
        error = caught
    # Also a worker that failed takes part: the others wait for it here.
    gathered = gather_object([(error, list(zip(mine, generations)))])
    errors = [error for error, _ in gathered if error is not None]
    if errors:
        raise min(errors, key=lambda error: isinstance(error, ClusterError))
    found = dict(pair for _, pairs in gathered for pair in pairs)
    return [found[index] for index in range(len(lengths))]


def prompts_of(prompter: Prompter, examples: Sequence[Example]) -> list[Sequence[int]]:
    """What `evaluate` puts to the model, tokenised."""
    return [prompter.prompt_ids(example.text) for example in examples]


_SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "target", "text", "choice")])


def evaluate(
    model: PreTrainedModel,
    prompter: Prompter,
    spec: TaskSpec,
    examples: Sequence[Example],
    *,
    max_tokens: int,
    strategy: Strategy | None = None,
    prompts: Sequence[Sequence[int]] | None = None,
) -> Evaluation:
    """Score `model` on labelled test `examples` by pure greedy decoding.

    Args:
        max_tokens: tokens that go through the model at once.
        strategy: what shares `model` over workers: they take part of the rows each, in place,
            and all return the same scores.
        prompts: the examples' token ids, where they are known from an earlier evaluation.
    """
    started = time.perf_counter()
    if prompts is None:
        prompts = prompts_of(prompter, examples)
    choices = prompter.choice_ids(spec.doc_to_choice) if spec.doc_to_choice else None

    def answer(rows: Sequence[int]) -> list[Generation]:
        return greedy(
            model,
            [prompts[row] for row in rows],
            max_new_tokens=spec.max_new_tokens,
            stop_ids=prompter.stop_ids(),
            choices=choices,
            max_tokens=max_tokens,
            numbers=rows,
        )

    if strategy is None:
        generations = answer(range(len(prompts)))
    else:
        with nullcontext() if strategy.sharded else merged(model):
            generations = _shared([len(prompt) for prompt in prompts], answer, strategy)
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
