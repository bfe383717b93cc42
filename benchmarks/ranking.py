"""A real ranking of the bundled suite and variants of it, beside what was measured.

    python benchmarks/ranking.py --run results/demo --out results/rank-benchmark
    python benchmarks/ranking.py --run results/demo    # only what the calibration measured itself

`--run` is a finished calibration. Its tasks, calibrated and held out, become labelled data sets,
and some of them variants whose labels are worth less or whose pools are worse: labels shuffled, a
fifth of them flipped, every row twice, a pool cut in halves, a pool next to nothing. All are ranked
by `taskeff rank` on local Ray. Then the rank correlation of estimated and measured data efficiency
is printed: CoS-Low as the ranking measured it, and the calibration's own quantities, each through
its own line fitted to the other tasks (leave-one-task-out), with a bootstrap interval over tasks.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.stats import spearmanr

from taskeff.config import RunConfig
from taskeff.config_file import parse_config
from taskeff.distributed.coslow import OnRay
from taskeff.errors import TaskeffError
from taskeff.estimate.regression import bootstrap_interval, left_out_means, left_out_predictions
from taskeff.estimate.run_tables import task_curves
from taskeff.rank_config import RankConfig
from taskeff.run.ranking import rank
from taskeff.storage import Store
from taskeff.tasks.task import load_spec, load_task

SEED = 0
NEAR_EMPTY = 20
QUANTITIES = ("cos_low", "random_cosine", "mean_confidence", "gradient_norm", "zero_shot")
Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class Measured:
    """A finished calibration: its configuration, and per task the area and the quantities."""

    config: RunConfig
    auc: dict[str, float]
    quantities: dict[str, dict[str, float]]
    kind: Any


def read_run(folder: str) -> Measured:
    """What a finished calibration measured of all its tasks, held-out ones included."""
    store = Store(folder)
    config = parse_config(yaml.safe_load(store.read_bytes("config.yaml")), "config.yaml")
    run, record = store.read_json("run.json"), store.read_json("calibration.json")
    rows = store.read_table("curves.parquet").to_pylist()
    curves = task_curves(rows, cap=record["cap"], ceiling=run["ceiling"])
    signals = {row["task"]: row for row in store.read_table("coslow.parquet").to_pylist()}
    names = sorted(name for name, curve in curves.items() if curve.status != "short")
    quantities = {name: {**signals[name], "zero_shot": curves[name].zero_shot} for name in names}
    return Measured(config, {n: curves[n].auc for n in names}, quantities, record["fit"]["kind"])


def shuffled(rows: Rows, rng: random.Random, _: Sequence[str]) -> Rows:
    """Every label from another row."""
    labels = [label for _, label in rows]
    rng.shuffle(labels)
    return [(text, label) for (text, _), label in zip(rows, labels)]


def flipped(rows: Rows, rng: random.Random, choices: Sequence[str]) -> Rows:
    """A fifth of the labels wrong."""
    wrong = set(rng.sample(range(len(rows)), len(rows) // 5))
    return [
        (text, rng.choice([c for c in choices if c != label]) if i in wrong else label)
        for i, (text, label) in enumerate(rows)
    ]


VARIANTS: Mapping[str, Callable[[Rows, random.Random, Sequence[str]], Rows]] = {
    "shuffled": shuffled,
    "flipped20": flipped,
    "twice": lambda rows, rng, choices: rows * 2,
    "half-a": lambda rows, rng, choices: rows[::2],
    "half-b": lambda rows, rng, choices: rows[1::2],
    "near-empty": lambda rows, rng, choices: rows[:NEAR_EMPTY],
}


def make_manifest(run: Measured, folder: Path, datasets: int) -> Path:
    """The tasks and as many variants of them as make `datasets` in all, as files and a manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    tasks = {name: load_task(load_spec(name), run.config.tasks.seed) for name in run.auc}
    fit = [name for name in tasks if tasks[name].spec.doc_to_choice]
    spread = sorted(fit, key=lambda name: run.auc[name])
    wanted = max(0, datasets - len(tasks))
    # The easiest, the hardest and the middle by turns, one kind of variant after another.
    order = [spread[i] for i in (0, len(spread) - 1, len(spread) // 2)]
    pairs = [(kind, name) for name in order for kind in VARIANTS][:wanted]
    for kind, name in [("", name) for name in tasks] + pairs:
        spec, train = tasks[name].spec, tasks[name].train
        rows = [(example.text, str(example.target)) for example in train]
        if kind:
            rng = random.Random(f"{SEED}:{kind}:{name}")
            rows = VARIANTS[kind](rows, rng, spec.doc_to_choice or ())
        full = f"{name}.{kind}" if kind else name
        write(folder / f"{full}.jsonl", rows)
        entries.append(
            {
                "name": full,
                "source": f"{full}.jsonl",
                "text_column": "text",
                "label_column": "label",
                "description": spec.description,
                "choices": list(spec.doc_to_choice) if spec.doc_to_choice else None,
                "max_new_tokens": spec.max_new_tokens,
            }
        )
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump({"datasets": entries}, sort_keys=False))
    return path


def write(path: Path, rows: Rows) -> None:
    """Rows as JSON lines; a file that says the same is left alone, so that a rerun resumes."""
    text = "".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in rows)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def rank_config(run: Measured, manifest: Path, options: argparse.Namespace) -> RankConfig:
    """The run's own model and CoS-Low settings."""
    return parse_config(
        {
            "manifest": str(manifest),
            "model": run.config.model.model_dump(),
            "family": options.run,
            "out": str(Path(options.out) / "ranking"),
            "coslow": run.config.coslow.model_dump(),
            "scoring": {"actors": [2, 2], "readers": 1, "shard_rows": 64},
        },
        "benchmark",
        RankConfig,
    )


def rho(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation; NaN where one side does not vary."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(spearmanr(x, y).statistic)


def line(name: str, x: np.ndarray, auc: np.ndarray, kind: Any) -> str:
    """One predictor: its own rank correlation, that of its left-out estimates, their error."""
    estimated = left_out_predictions(kind, x, auc)
    error = float(np.mean(np.abs(auc - estimated)))
    cells = [f"| {name:<32}"]
    for values in (x, estimated):
        found = bootstrap_interval(values, auc, SEED, rho)
        span = "" if found is None else " [{:+.2f}, {:+.2f}]".format(*found)
        cells.append(f"{rho(values, auc):+.2f}{span}")
    return " | ".join([*cells, f"{error:.3f} |"])


def compare(run: Measured, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the table of predictors and what became of the variants."""
    found = {row["name"]: row["cos_low"] for row in rows}
    names = sorted(run.auc)
    auc = np.array([run.auc[name] for name in names])
    print(f"\n{len(names)} tasks with a measured curve; 95 % bootstrap intervals over tasks\n")
    print("| predictor | Spearman, raw | Spearman, left out | error, left out |\n|---|---|---|---|")
    if all(found.get(name) is not None for name in names):
        ranked = np.array([found[name] for name in names])
        print(line("CoS-Low, as ranked", ranked, auc, run.kind))
    for quantity in QUANTITIES:
        title = "CoS-Low, as calibrated" if quantity == "cos_low" else quantity.replace("_", " ")
        values = np.array([run.quantities[name][quantity] for name in names])
        print(line(title, values, auc, run.kind))
    mean = left_out_means(auc)
    print(f"| {'mean of the others':<32} | | | {float(np.mean(np.abs(auc - mean))):.3f} |")
    if not rows:
        return
    print("\n| data set | status | CoS-Low | interval | AUC | labels for 90 % | measured AUC |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(_row(row, run.auc.get(row["name"])))


def _row(row: Mapping[str, Any], measured: float | None) -> str:
    if row["cos_low"] is None:
        return f"| {row['name']} | {row['status']}: {row['reason']} | | | | | |"
    labels = "beyond" if row["labels_90"] is None else f"{row['labels_90']:.0f}"
    span = f"{row['cos_low_low']:+.2f} to {row['cos_low_high']:+.2f}"
    known = "" if measured is None else f"{measured:.3f}"
    return (
        f"| {row['name']} | {row['status']} | {row['cos_low']:+.3f} | {span} "
        f"| {row['auc']:.3f} | {labels} | {known} |"
    )


def main() -> int:
    """Make, rank, compare; 2 on bad input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="folder of a finished calibration")
    parser.add_argument("--out", help="folder for data sets and ranking; without it none is made")
    parser.add_argument("--datasets", type=int, default=24)
    options = parser.parse_args()
    started = time.monotonic()
    try:
        run = read_run(options.run)
        rows: list[dict[str, Any]] = []
        if options.out:
            manifest = make_manifest(run, Path(options.out) / "data", options.datasets)
            rows = rank(rank_config(run, manifest, options), OnRay())
    except TaskeffError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    compare(run, rows)
    print(f"\n{time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
