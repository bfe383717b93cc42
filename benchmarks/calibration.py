"""What scheduling costs: rows on shared worker groups against one Tune trial per cell.

    python benchmarks/calibration.py overhead   # needs two idle cores, some six minutes
    python benchmarks/calibration.py scaling    # needs two idle cores, some five minutes
    python benchmarks/calibration.py simulate   # seconds

`overhead` measures the same cells twice in one run. The naive layout is a Tune trial per cell whose
Ray Train job loads the model, trains, writes the trained weights as a checkpoint and evaluates;
training and evaluation code are the same. Overhead is makespan x lanes less the seconds spent
training and evaluating, per cell. `simulate` plans 30 tasks x 8 budgets on 64 lanes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from taskeff.finetune.cells import Cell
from taskeff.run.schedule import make_schedule

BUDGETS = (0, 50, 100, 200, 500, 1000, 2500, 5000)
TASKS = ("name_gender", "part_of_speech", "sentiment_words", "past_tense")


def published_grid(seed: int) -> dict[Cell, float]:
    """Seconds of every cell of a 30 x 8 grid, as an 8B model on two H100 would take them.

    Steps of 32 examples at 6ND, early stopping anywhere from 80 to 500 steps, validation on a
    fifth of the budget every 4 steps, up to 5,000 test rows; 300 TFLOP/s per GPU.
    """
    rng = random.Random(seed)
    per_token = 2 * 8e9 / (2 * 300e12)
    seconds = {}
    for index in range(30):
        tokens = min(1500.0, rng.lognormvariate(4.8, 0.7))
        tested = rng.choice((250, 500, 1000, 2000, 5000, 5000))
        for budget in BUDGETS:
            work = tested * (tokens + 10)
            if budget:
                steps = rng.randint(80, 500)
                work += 3 * steps * 32 * tokens + steps // 4 * (budget // 5) * tokens
            seconds[Cell(f"task-{index}", budget, 0)] = work * per_token
    return seconds


def simulated_schedules(seconds: dict[Cell, float], lanes: int) -> dict[str, float]:
    """The planned makespan against the least there can be, worker groups' start included."""
    schedule = make_schedule(seconds, lanes)
    least = max(max(seconds.values()), sum(seconds.values()) / lanes)
    return {
        "lanes": lanes,
        "jobs": len(schedule.jobs),
        "makespan_s": schedule.makespan,
        "least_s": least,
        "ratio": schedule.makespan / least,
    }


def simulate() -> dict[str, Any]:
    """Five drawn grids on 64 lanes."""
    return {"simulated": [simulated_schedules(published_grid(seed), 64) for seed in range(5)]}


def run_config(model: str, storage: str, lanes: int, **training: Any):
    """Four bundled tasks on the tests' model."""
    from taskeff.config_file import parse_config

    return parse_config(
        {
            "name": "run",
            "storage": storage,
            "model": {"path": model, "name": "tiny", "dtype": "float32"},
            "tasks": {"calibration": list(TASKS)},
            "training": {
                "budgets": [8, 32, 64],
                "learning_rate": 1e-3,
                "max_steps": 20,
                "batch_size": 8,
                **training,
            },
            "evaluation": {"test_cap": 64},
            "coslow": {"n_examples": 8},
            "cluster": {"max_concurrent_jobs": lanes, "task_seeds_per_job": 4},
        },
        "benchmark",
    )


def ours(config: Any) -> dict[str, float]:
    """The product's own grid, from nothing to published cells."""
    from rich.console import Console

    from taskeff.distributed.executor import RayExecutor
    from taskeff.finetune.cells import seconds_of
    from taskeff.run.driver import calibrate
    from taskeff.run.plan import make_plan

    started = time.perf_counter()
    calibrate(config, RayExecutor, Console(stderr=True), only_budgets=config.training.budgets)
    makespan = time.perf_counter() - started
    results = make_plan(config).results()
    pure = sum(map(seconds_of, results.values()))
    return _account(makespan, pure, len(results), config)


def naive(config: Any) -> dict[str, float]:
    """A Tune trial, a Ray Train job, a model load and a checkpoint per cell."""
    import ray
    from ray import train, tune
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    from taskeff.distributed.executor import TRIAL_RESOURCES
    from taskeff.distributed.session import ray_session
    from taskeff.distributed.trainer import scaling
    from taskeff.run.plan import make_plan

    started = time.perf_counter()
    plan = make_plan(config)
    scratch = plan.store.path("naive")
    cells = {f"{c.task}-{c.budget}": c for c in plan.cells}
    with ray_session(config.cluster):
        tasks = {name: ray.put(task) for name, task in plan.tasks.items()}

        def trial(parameters: dict[str, Any]) -> None:
            cell = cells[parameters["cell"]]
            TorchTrainer(
                _naive_cell,
                train_loop_config={"cell": cell, "config": config, "task": tasks[cell.task]},
                scaling_config=scaling(config.cluster),
                run_config=train.RunConfig(
                    name=parameters["cell"],
                    storage_path=scratch,
                    callbacks=[TuneReportCallback()],
                ),
            ).fit()

        found = tune.Tuner(
            tune.with_resources(trial, TRIAL_RESOURCES),
            param_space={"cell": tune.grid_search(list(cells))},
            tune_config=tune.TuneConfig(max_concurrent_trials=config.cluster.max_concurrent_jobs),
            run_config=tune.RunConfig(name="naive", storage_path=scratch, verbose=0),
        ).fit()
        makespan = time.perf_counter() - started
        if found.errors:
            raise RuntimeError(f"{len(found.errors)} naive trials failed: {found.errors[0]}")
        pure = sum(result.metrics["pure"] for result in found if result.metrics)
    return _account(makespan, pure, len(cells), config)


def _naive_cell(loop: dict[str, Any]) -> None:
    import ray
    import torch
    from ray import train

    from taskeff.finetune.evaluate import evaluate
    from taskeff.finetune.loop import FineTuner
    from taskeff.models import load_model, load_tokenizer
    from taskeff.tasks.prompts import Prompter

    cell, config, task = loop["cell"], loop["config"], ray.get(loop["task"])
    torch.set_num_threads(1)
    prompter = Prompter(load_tokenizer(config.model), task.spec.description)
    model = load_model(config.model, "cpu")
    pure = 0.0
    if cell.budget:
        tuner = FineTuner(model, config.training, seed=cell.seed)
        examples = task.subset(cell.budget, cell.seed)
        encoded = [prompter.encode_example(e, end_of_turn=True) for e in examples]
        pure += tuner.train(encoded, seed=cell.seed).seconds
        model = tuner.model
    scored = evaluate(
        model,
        prompter,
        task.spec,
        task.test_subset(config.evaluation.test_cap),
        max_tokens=config.evaluation.max_tokens_per_pack,
    )
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        train.report(
            {"pure": pure + scored.seconds, "score": scored.score},
            checkpoint=train.Checkpoint.from_directory(folder),
        )


def _account(makespan: float, pure: float, cells: int, config: Any) -> dict[str, float]:
    lanes = config.cluster.max_concurrent_jobs
    written = sum(p.stat().st_size for p in Path(config.storage).rglob("*") if p.is_file())
    return {
        "lanes": lanes,
        "cells": cells,
        "makespan_s": makespan,
        "pure_s": pure,
        "overhead_s_per_cell": (makespan * lanes - pure) / cells,
        "megabytes_written": written / 1e6,
    }


def overhead(model: str) -> dict[str, Any]:
    """Ours and the naive layout on the same 16 cells, two lanes each."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        found = {
            "rows": ours(run_config(model, first, 2)),
            "trial_per_cell": naive(run_config(model, second, 2)),
        }
    rows, cells = found["rows"], found["trial_per_cell"]
    return {
        **found,
        "overhead_ratio": cells["overhead_s_per_cell"] / rows["overhead_s_per_cell"],
        "bytes_ratio": cells["megabytes_written"] / rows["megabytes_written"],
    }


def scaling(model: str, max_steps: int) -> dict[str, Any]:
    """The same cells on one lane and on two."""
    found = {}
    for lanes in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            found[f"lanes_{lanes}"] = ours(
                run_config(model, folder, lanes, max_steps=max_steps, batch_size=32)
            )
    speedup = found["lanes_1"]["makespan_s"] / found["lanes_2"]["makespan_s"]
    return {**found, "speedup": speedup}


def main() -> int:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("overhead", "scaling", "simulate"))
    parser.add_argument("--model", help="default: the tests' model")
    parser.add_argument("--max-steps", type=int, default=200, help="of a cell in `scaling`")
    options = parser.parse_args()
    if options.what == "simulate":
        found = simulate()
    else:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        model = options.model
        if model is None:
            sys.path.insert(0, str(Path(__file__).parents[1]))
            from tests.tiny_model import cached

            model = str(cached())
        found = overhead(model) if options.what == "overhead" else scaling(model, options.max_steps)
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
