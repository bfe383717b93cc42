"""Candidate data sets for the ranking's tests: files of a few made-up rows, and a family."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from taskeff.config_file import parse_config
from taskeff.coslow.fingerprint import fingerprint, settings_of
from taskeff.estimate.calibration import Calibration, TaskPoint, fit_calibration
from taskeff.estimate.shapes import Beta
from taskeff.models import family_identity, load_tokenizer, model_config
from taskeff.rank_config import RankConfig
from tests.tiny_model import FEELINGS, KINDS, MEMBERS, instruction

LABELS = {"kinds": ["animal", "food", "tool"], "feelings": sorted(FEELINGS)}


def word_rows(labels: Sequence[str], seed: int, n: int) -> list[dict[str, str]]:
    """`n` distinct rows of a word and its label."""
    rng = random.Random(seed)
    return [
        {"text": f"Word: {rng.choice(MEMBERS[label])} {i}", "label": label}
        for i in range(n)
        for label in [rng.choice(labels)]
    ]


def write_lines(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def entry(name: str, answers: Sequence[str], **fields: Any) -> dict[str, Any]:
    """A manifest entry of word rows in `NAME.jsonl`."""
    subject = "one English word"
    return {
        "name": name,
        "source": f"{name}.jsonl",
        "text_column": "text",
        "label_column": "label",
        "choices": list(answers),
        "description": instruction(subject, "Decide what kind of thing it names.", answers),
        **fields,
    }


def write_manifest(folder: Path, entries: Sequence[Any]) -> Path:
    """The entries as `manifest.yaml`."""
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump({"datasets": list(entries)}), encoding="utf-8")
    return path


def some(folder: Path) -> list[dict[str, Any]]:
    """Five data sets: two labelled, one unlabelled, one too small, one that repeats itself."""
    kinds, feelings = LABELS["kinds"], LABELS["feelings"]
    write_lines(folder / "kinds.jsonl", word_rows(kinds, 1, 60))
    write_lines(folder / "feelings.jsonl", word_rows(feelings, 2, 60))
    write_lines(folder / "unlabelled.jsonl", word_rows(sorted(KINDS)[:4], 3, 50))
    write_lines(folder / "tiny.jsonl", word_rows(kinds, 4, 5))
    write_lines(folder / "twice.jsonl", word_rows(kinds, 5, 40) * 2)
    return [
        entry("kinds", kinds, price=0.5),
        entry("feelings", feelings),
        entry("unlabelled", sorted(KINDS)[:4], labels="none"),
        entry("tiny", kinds),
        entry("twice", kinds),
    ]


def family(model: Path, folder: Path) -> Path:
    """A calibration with the tests' model and eight examples, over tasks that are made up."""
    named = model_config(str(model))
    stated = {"n_examples": 8, "lora_rank": 4, "max_new_tokens": 4}
    settings = settings_of(stated)
    identity = family_identity(named, load_tokenizer(named))
    rng = np.random.default_rng(0)
    calibration = _of(fingerprint(identity, named, settings), {}, rng.normal(0, 0.05, 12))
    path = folder / "family.json"
    calibration.save(path)
    return path


def _of(
    measured: Mapping[str, Any], stated: Mapping[str, Any], noise: Sequence[float] = (0.0, 0.1)
) -> Calibration:
    points = [
        TaskPoint(f"task{i}", float(np.clip(0.3 + 0.05 * i + e, 0.05, 0.95)), -0.1 + 0.08 * i)
        for i, e in enumerate(noise)
    ]
    return fit_calibration(
        points, curve=Beta(7.0), cap=1000, family="tests", fingerprint={**measured, **stated}
    )


def rank_config(model: Path, manifest: Path, out: Path, family: Path, **changes) -> RankConfig:
    """A ranking small enough for a test."""
    values = {
        "manifest": str(manifest),
        "model": model_config(str(model)).model_dump(),
        "family": str(family),
        "out": str(out),
        "label_price": 2.0,
        "coslow": {"n_examples": 8, "rank": 4, "max_new_tokens": 4},
        "scoring": {"shard_rows": 16, "actors": [1, 1], "readers": 1},
        **changes,
    }
    return parse_config(values, "test", RankConfig)
