"""A run's artefacts -> two small CSV files: every score; facts and signals of every task."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.replication.noise import measure_noise
from benchmarks.replication.targets import STATISTICS
from taskeff.run.archive import export_results
from taskeff.run.data_sets import run_fingerprint
from taskeff.run.plan import Plan
from taskeff.storage import canonical_json
from taskeff.tasks.suite.__main__ import LONGEST_NGRAM
from taskeff.tasks.task import Task

SIGNAL = (
    "cos_low",
    "cos_low_low",
    "cos_low_high",
    "mean_cosine",
    "random_cosine",
    "mean_confidence",
    "gradient_norm",
    "n_pool",
)
DIGITS = 6
EXAMPLES = ("low", "random", "high", "warm")


def collect(plan: Plan, folder: Path, model: Any) -> None:
    """Write the run's tables and archive; the noise study is measured where it is missing.

    Args:
        model: the run's model, or None to leave out what is not studied yet.
    """
    scores = [
        {key: result[key] for key in ("task", "budget", "seed", "score", "label_score", "n_test")}
        for _, result in sorted(plan.results().items())
    ]
    _write(folder / "scores.csv", scores)
    signals = plan.coslow_results()
    studies = _known_studies(folder / "noise.jsonl")
    rows: list[dict[str, Any]] = []
    for name, task in plan.tasks.items():
        signal = signals.get(name, {})
        row = {**_facts(plan, task), **{key: signal.get(key) for key in SIGNAL}}
        found = measure_noise(plan, name, model, studies)
        if found is not None:
            studies[found["hash"]] = found
            _write_studies(folder, studies)  # minutes each: an interrupted study keeps them
        rows.append({**row, **_noise(found)})
        print(f"{name}: collected", flush=True)
    _write(folder / "signals.csv", rows)
    fingerprint = canonical_json(run_fingerprint(plan))
    (folder / "fingerprint.json").write_text(fingerprint, encoding="utf-8")
    (folder / "cells.jsonl").write_bytes(export_results(plan))


def _facts(plan: Plan, task: Task) -> dict[str, Any]:
    """Number of labels, chance, and what character n-grams of all training rows reach."""
    store = plan.store.child("facts", f"task={task.name}", task.data_hash)
    if not store.exists("facts.json"):
        labels = task.spec.doc_to_choice
        distinct = {example.target for example in task.train}
        store.write_json(
            {
                "task": task.name,
                "n_labels": len(labels) if labels else len(distinct),
                "is_open": int(not labels),
                "chance": 1 / len(labels) if labels else 0.0,
                "n_train": len(task.train),
                "ngram_accuracy": _ngram_accuracy(plan, task) if labels else None,
            },
            "facts.json",
        )
    return store.read_json("facts.json")


def _ngram_accuracy(plan: Plan, task: Task) -> float:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    test = task.test_subset(plan.config.evaluation.test_cap)
    model = make_pipeline(
        CountVectorizer(analyzer="char", ngram_range=(1, LONGEST_NGRAM), binary=True),
        LogisticRegression(max_iter=1000),
    )
    model.fit([e.text for e in task.train], [e.target for e in task.train])
    return float(model.score([e.text for e in test], [e.target for e in test]))


def _known_studies(path: Path) -> dict[str, dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {study["hash"]: study for study in map(json.loads, lines)}


def _write_studies(folder: Path, studies: dict[str, dict[str, Any]]) -> None:
    lines = (json.dumps(studies[key], sort_keys=True) + "\n" for key in sorted(studies))
    (folder / "noise.jsonl").write_text("".join(lines), encoding="utf-8")


def _noise(found: dict[str, Any] | None) -> dict[str, Any]:
    groups = (*EXAMPLES, "a_sd", "draw_sd")
    columns: dict[str, Any] = {f"{group}_{one}": None for group in groups for one in STATISTICS}
    columns |= {"commonest_label": None, "n_candidates": None}
    if found is None:
        return columns
    for group in EXAMPLES:
        for statistic, value in (found[group] or {}).items():
            columns[f"{group}_{statistic}"] = value
    for statistic in STATISTICS:
        by_a = [one[statistic] for one in found["by_a"]]
        columns[f"a_sd_{statistic}"] = float(np.std(by_a, ddof=1))
        columns[f"draw_sd_{statistic}"] = found["draws"][statistic]["sd"]
    columns["commonest_label"] = found["commonest_label"]
    columns["n_candidates"] = found["n_candidates"]
    return columns


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["task"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _short(value) for key, value in row.items()} for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.getvalue(), encoding="utf-8")


def _short(value: Any) -> Any:
    return round(value, DIGITS) if isinstance(value, float) else value
