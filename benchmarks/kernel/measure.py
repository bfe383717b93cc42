"""One task's kernel from one draw of rows: everything that the tables need, as a line of JSON."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score

from taskeff.coslow.gradients import LoRA, gradient_gram
from taskeff.coslow.kernel import RIDGE, AnswerKernel, answer_kernel, kernel_pilot
from taskeff.coslow.pilot import AnswerRows, answer_rows, summed
from taskeff.coslow.statistic import coslow
from taskeff.tasks.prompts import Prompter
from taskeff.tasks.task import Example, Task, load_spec, load_task

Draw = Literal["random", "low", "more"]
Floats = npt.NDArray[np.float64]
MEMORY = 6 << 30
CUTS = (4, 8)
MOVED = (0.1, 0.2, 0.3)
NOISE_SEEDS = 20
PROBE_C = 0.01


def drawn_rows(archive: Path, name: str, draw: Draw) -> tuple[Task, list[Example]]:
    """The task and the rows that its CoS-Low was measured with, or 32 more random ones."""
    task = load_task(load_spec(name), 0)
    selection = _selections(archive)[name]
    labelled = {example.id: example for example in task.train}
    if draw == "more":
        rest = [e for e in task.train if e.id not in set(selection["random"])]
        return task, random.Random(f"0:{name}:more").sample(rest, len(selection["random"]))
    return task, [labelled[id_] for id_ in selection[draw]]


def _selections(archive: Path) -> dict[str, dict[str, list[str]]]:
    lines = map(json.loads, archive.read_text(encoding="utf-8").splitlines())
    return {line["task"]: line["selection"] for line in lines if line["kind"] == "coslow"}


def measure(model: Any, tokenizer: Any, archive: Path, name: str, draw: Draw) -> dict[str, Any]:
    """A task's line; the matrix itself goes under `matrix` and is not for the line."""
    task, examples = drawn_rows(archive, name, draw)
    prompter = Prompter(tokenizer, task.spec.description)
    rows = answer_rows(prompter, examples, task.spec.doc_to_choice)
    n, c = len(rows.labels), len(rows.answers)
    own = [rows.answers.index(label) for label in rows.labels]
    at = [i * c + k for i, k in enumerate(own)]

    started = time.perf_counter()
    gram = gradient_gram(model, rows.examples, LoRA(64, 32, 0), memory=MEMORY)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    alone = gradient_gram(model, [rows.examples[i] for i in at], LoRA(64, 32, 0), memory=MEMORY)
    seconds_cos_low = time.perf_counter() - started

    matrix, likelihoods = summed(gram, rows.lengths)
    cosines = gram.cosines[np.ix_(at, at)]
    return {
        "task": name,
        "draw": draw,
        "rows": list(rows.ids),
        "tokens": int(sum(len(e.prompt_ids) + len(e.answer_ids) - 1 for e in rows.examples)),
        "zero_shot_label": float(np.mean(likelihoods.reshape(n, c).argmax(1) == np.array(own))),
        "cosine": coslow(cosines, draws=1).median,
        "cosine_error": float(np.abs(cosines - alone.cosines).max()),
        "probe": probe(model, [rows.examples[i * c].prompt_ids for i in range(n)], own),
        "seconds": {"kernel": seconds, "cos_low": seconds_cos_low},
        **analysed(matrix, likelihoods, rows, own),
        "matrix": matrix,
    }


def analysed(
    matrix: Floats, likelihoods: Floats, rows: AnswerRows, own: Sequence[int]
) -> dict[str, Any]:
    """What needs no model: the kernel, its first 16 rows, cuts, moved labels."""
    c = len(rows.answers)
    found = kernel_pilot(matrix, rows.labels, rows.answers, ids=rows.ids).to_dict()
    return {
        "kernel": found,
        "first_16": _accuracy(matrix[: 16 * c, : 16 * c], own[:16]),
        "cut": {str(k): _cut(matrix, likelihoods.reshape(-1, c), own, k) for k in CUTS if k < c},
        "moved": {str(share): _moved(matrix, own, c, share) for share in MOVED},
    }


def _accuracy(matrix: Floats, own: Sequence[int]) -> float:
    return answer_kernel(matrix, own).left_out_accuracy()


def _cut(matrix: Floats, likelihoods: Floats, own: Sequence[int], most: int) -> float:
    """Accuracy among each row's label and its likeliest other answers, `most` in all."""
    n, c = likelihoods.shape
    kept = likeliest(likelihoods, own, most)
    flat = (np.arange(n)[:, None] * c + kept).reshape(-1)
    places = (kept == np.array(own)[:, None]).argmax(1)
    return _accuracy(matrix[np.ix_(flat, flat)], places.tolist())


def likeliest(likelihoods: Floats, own: Sequence[int], most: int) -> np.ndarray:
    """(N, most) int64, rising: each row's label and the answers of the highest likelihood.

    The label is always there, so what is measured on them is too good by what the model misses.
    """
    likely = likelihoods.copy()
    likely[np.arange(len(own)), list(own)] = np.inf
    return np.sort(np.argsort(-likely, axis=1, kind="stable")[:, :most], axis=1)


def _moved(matrix: Floats, own: Sequence[int], c: int, share: float) -> dict[str, float]:
    """Labels of a share of the rows moved to another answer: are they the least likely ones?"""
    clean = answer_kernel(matrix, own)
    n, k = len(own), round(share * len(own))
    found: list[Mapping[str, float]] = []
    for seed in range(NOISE_SEEDS):
        rng = np.random.default_rng(seed)
        moved = rng.choice(n, k, replace=False)
        labels = np.array(own)
        labels[moved] = (labels[moved] + rng.integers(1, c, k)) % c
        scores = AnswerKernel(clean.matrix, labels, clean.scale).left_out_scores(RIDGE)
        others = scores.copy()
        others[np.arange(n), labels] = -np.inf
        doubt = others.max(1) - scores[np.arange(n), labels]
        is_moved = np.isin(np.arange(n), moved)
        above = roc_auc_score(is_moved, doubt)
        least = np.argsort(-doubt, kind="stable")[:k]
        accuracy = float(np.mean(scores.argmax(1) == labels))
        found.append(
            {"auroc": float(above), "found": float(is_moved[least].mean()), "accuracy": accuracy}
        )
    return {key: float(np.mean([one[key] for one in found])) for key in found[0]}


@torch.inference_mode()
def probe(model: Any, prompts: Sequence[Sequence[int]], own: Sequence[int]) -> float:
    """Leave-one-out accuracy of a logistic regression on the last prompt token's hidden state."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import LeaveOneOut, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    states = []
    for prompt in prompts:
        out = model(torch.tensor([list(prompt)]), output_hidden_states=True, use_cache=False)
        states.append(out.hidden_states[len(out.hidden_states) * 2 // 3][0, -1].float().numpy())
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=PROBE_C, max_iter=500))
    found = cross_val_score(classifier, np.stack(states), np.array(own), cv=LeaveOneOut())
    return float(np.mean(found))
