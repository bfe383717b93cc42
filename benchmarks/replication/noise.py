"""What CoS-Low's value hangs on: which 32 are drawn, which A, which labels, which model.

For each task whose CoS-Low is measured, from the model that it was measured with. Shapes: C
candidates (the least confident tenth), N examples.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.replication.targets import STATISTICS
from taskeff.coslow.data_set import read_confidences
from taskeff.coslow.result import gram_of
from taskeff.coslow.statistic import coslow
from taskeff.finetune.loop import FineTuner
from taskeff.models import load_model, load_tokenizer
from taskeff.run.archive import drawn
from taskeff.run.plan import Plan
from taskeff.storage import Store
from taskeff.tasks.prompts import Prompter
from taskeff.tasks.task import Example, Task

DRAWS = 500
A_SEEDS = (0, 1, 2, 3, 4)
WARM_EXAMPLES = 32  # 8 steps of 4, each question once


def measure_noise(
    plan: Plan, name: str, model: Any | None, known: Mapping[str, dict[str, Any]]
) -> dict[str, Any] | None:
    """One task's study, measured once and kept in the run's storage.

    None where its CoS-Low is not measured, or it would have to be studied without a model or
    without the pool's confidences (which an archive does not carry).

    Args:
        known: studies made elsewhere, by the hash of the CoS-Low they are of.
    """
    task = plan.tasks[name]
    hash_ = plan.coslow_hashes[name]
    if hash_ in known:
        return known[hash_]
    signal = plan.folder(name)
    store = plan.store.child("noise", f"task={name}", hash_)
    if not store.exists("result.json"):
        if model is None or not signal.exists("pool.json"):
            return None
        result = {"hash": hash_, **_Study(plan, task, signal, model).result()}
        store.write_json(result, "result.json")
    return store.read_json("result.json")


class _Study:
    def __init__(self, plan: Plan, task: Task, signal: Store, model: Any):
        self.plan, self.task, self.model = plan, task, model
        self.settings = plan.config.coslow
        self.prompter = Prompter(load_tokenizer(plan.config.model), task.spec.description)
        self.labelled = {example.id: example for example in task.train}
        known = [
            (confidence, place, f"{task.spec.training_split}-{number}")
            for place, (number, confidence) in enumerate(
                zip(*read_confidences(signal)[:2], strict=True)
            )
            if confidence is not None
        ]
        self.by_confidence = [id_ for _, _, id_ in sorted(known)]
        selection = drawn(signal.read_json("selection.json"), signal.path("selection.json"))
        self.low, self.random = selection["low"], selection["random"]

    def result(self) -> dict[str, Any]:
        n = self.settings.n_examples
        size = max(n, round(self.settings.quantile * len(self.by_confidence)))
        candidates = self.by_confidence[:size]
        rng = random.Random(f"{self.settings.seed}:high")
        high = rng.sample(self.by_confidence[-size:], n)
        labels = self._labels(self.low)
        seeds = {seed: self._cosines(self.low, self.model, seed) for seed in A_SEEDS}
        return {
            "task": self.task.name,
            "n_candidates": size,
            "commonest_label": Counter(labels).most_common(1)[0][1] / len(labels),
            "low": self._statistics(seeds[self.settings.seed], self.low),
            "random": self._statistics(self._cosines(self.random, self.model), self.random),
            "high": self._statistics(self._cosines(high, self.model), high),
            "warm": self._warm(),
            "by_a": [self._statistics(seeds[seed], self.low) for seed in A_SEEDS],
            "draws": self._draws(candidates),
        }

    def _labels(self, ids: Sequence[str]) -> list[str]:
        return [self.labelled[id_].target or "" for id_ in ids]

    def _cosines(self, ids: Sequence[str], model: Any, seed: int | None = None) -> npt.NDArray:
        settings = self.settings
        if seed is not None:
            settings = settings.model_copy(update={"seed": seed})
        examples = [
            self.prompter.encode_example(self.labelled[id_], end_of_turn=False) for id_ in ids
        ]
        return gram_of(model, examples, settings).cosines

    def _statistics(self, cosines: npt.NDArray, ids: Sequence[str]) -> dict[str, float | None]:
        found = coslow(cosines, labels=self._labels(ids), draws=1)
        return {name: getattr(found, name) for name in STATISTICS}

    def _draws(self, candidates: Sequence[str]) -> dict[str, Any]:
        """Spread over draws of N from the C candidates; without replacement, so where C is not
        much above N it is less than that of draws from all of the task's rows."""
        cosines = self._cosines(candidates, self.model)
        rng = random.Random(f"{self.settings.seed}:draws")
        found: dict[str, list[float]] = {name: [] for name in STATISTICS}
        for _ in range(DRAWS):
            rows = rng.sample(range(len(candidates)), self.settings.n_examples)
            drawn = self._statistics(cosines[np.ix_(rows, rows)], [candidates[row] for row in rows])
            for name, values in found.items():
                values.append(float(drawn[name] or 0.0))
        return {
            name: {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1))}
            for name, values in found.items()
        }

    def _warm(self) -> dict[str, float | None] | None:
        """CoS-Low after training on randomly drawn labels; None for a task that lists none."""
        choices = self.task.spec.doc_to_choice
        if not choices:
            return None
        rng = random.Random(f"{self.settings.seed}:{self.task.name}:warm")
        texts = rng.sample([example.text for example in self.task.train], WARM_EXAMPLES)
        examples = [
            self.prompter.encode_example(
                Example(f"warm-{number}", text, rng.choice(choices)), end_of_turn=True
            )
            for number, text in enumerate(texts)
        ]
        training = self.plan.config.training.model_copy(
            update={"batch_size": 4, "epochs": 1.0, "early_stopping": None}
        )
        tuner = FineTuner(load_model(self.plan.config.model), training, seed=0)
        tuner.train(examples, seed=0)
        merged = tuner.model.merge_and_unload() if training.method == "lora" else tuner.model
        return self._statistics(self._cosines(self.low, merged.eval()), self.low)
