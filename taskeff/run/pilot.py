"""Small fine-tunes of the user's model on the user's labels: evidence that `predict` reads.

A pilot is a calibration's plan of one task: its cells, zero-shot included, are measured, stored and
resumed as a calibration's are, by the family's recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from taskeff.config import ModelConfig, RunConfig
from taskeff.config_file import overridden, parse_config
from taskeff.errors import ConfigError, DataError, EstimateError
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.pilots import PilotFile, PilotRow, ScoreRow
from taskeff.finetune.cells import PUBLISHED_RECIPE, Cell, recipe_of, stored_recipe
from taskeff.models import load_architecture, named_model
from taskeff.run.checks import rounding_note
from taskeff.run.cost import forecast, lines
from taskeff.run.driver import measure_cells
from taskeff.run.executor import Executor
from taskeff.run.inline import InlineExecutor
from taskeff.run.labelled import labelled_task, read_hand_off
from taskeff.run.plan import Plan, make_plan
from taskeff.run.progress import say
from taskeff.screen import Screen
from taskeff.storage import Store
from taskeff.tasks.task import Task, TaskSpec

RESULT = "pilots.json"
FEW_TEST_ROWS = 100


def pilot_config(
    model: ModelConfig | str | Path,
    task: str,
    budgets: Sequence[int],
    out: str,
    *,
    family: str | None = None,
    dtype: str | None = None,
    draws: int = 1,
    seed: int = 0,
    cluster: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
) -> RunConfig:
    """A run of one task by a family's recipe, stored below `out`/pilot.

    Args:
        model: a Hugging Face id or folder, or a `ModelConfig`.
        task: a bundled task's name or a task file.
        budgets: numbers of labels, from 1 up.
        out: folder or URI of `pilots.json` and what it is made from.
        family: a calibration; one without a recipe, and None, take the published one.
        dtype: of a model given by its path; default the family's, else as it is stored.
        draws: how often each budget is measured, each time on rows of another draw.
        seed: of the task's splits.
        cluster: settings of that section.
        overrides: key.sub=value, as for a calibration.

    Raises:
        TaskeffError: budgets or draws below 1, no such family, or an override that is none.

    Examples:
        >>> taskeff.pilot_config("model", "name_gender", [32, 8], "mine").training.budgets
        (8, 32)
    """
    if not budgets or min(budgets) < 1:
        raise ConfigError(f"--budgets {','.join(map(str, budgets))}: give numbers from 1 up")
    if draws < 1:
        raise ConfigError(f"--draws {draws}: give 1 or more")
    known = Calibration.load(family).fingerprint if family else {}
    stored = stored_recipe(known, f"family {family!r}") if family else None
    training, test_cap = stored or (PUBLISHED_RECIPE, None)
    cells = {"budgets": sorted(set(budgets)), "seeds": list(range(draws))}
    values = {
        "name": "pilot",
        "storage": out,
        "model": named_model(model, dtype, known).model_dump(),
        "tasks": {"calibration": [task], "seed": seed},
        "training": {**training.model_dump(mode="json"), **cells},
        "evaluation": {} if test_cap is None else {"test_cap": test_cap},
        "cluster": dict(cluster or {}),
    }
    return parse_config(overridden(values, list(overrides), "the options"), "the options")


def pilot(
    config: RunConfig,
    *,
    labels: Sequence[str] = (),
    family: str | None = None,
    executor: Callable[[RunConfig], Executor] = InlineExecutor,
    console: Console | None = None,
    only_plan: bool = False,
) -> PilotFile | None:
    """Say what the pilots cost, fine-tune and score them, write `pilots.json`.

    What is measured already is not measured again.

    Args:
        config: see `pilot_config`.
        labels: folders that `select` wrote and whose rows are labelled, or filled files in them.
        family: the calibration that the pilots are for; another model than its is refused.
        executor: `InlineExecutor`, or `RayExecutor`.
        only_plan: end once the cost is said.

    Returns:
        What `pilots.json` holds; None where nothing, or not everything, was measured.

    Raises:
        TaskeffError: something is wrong with the task, its labels or the model, said before any
            training; or a fine-tune failed, what was measured is kept.

    Examples:
        >>> config = taskeff.pilot_config(
        ...     "model", "name_gender", [8], "mine", overrides=["training.max_steps=2"]
        ... )
        >>> found = taskeff.pilot(config)
        recipe: the published: all weights, ...
        >>> found.merged()[0].budget
        8
    """
    console = console or Screen()
    plan = _planned(config, labels)
    fingerprint, cost = _fingerprint(plan), forecast(plan, plan.results())
    known = {} if family is None else Calibration.load(family).fingerprint
    _check_model(known, fingerprint, str(family))
    said = [_recipe_line(plan.config, known), *lines(plan.config, cost, placement=False)]
    for line in said:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    for warning in _differences(known, fingerprint):
        say(console, "warning:", warning)
    for note in _notes(plan):
        say(console, "note:", note)
    if only_plan:
        for line in plan.row_lines:
            console.print(line, highlight=False, soft_wrap=True, markup=False)
        for note in plan.notes:
            say(console, "note:", note)
        return None
    results = measure_cells(plan, config, executor, console)
    if results is None:
        return None
    found = _written(plan, fingerprint, results)
    Store(config.storage).write_json(found.model_dump(mode="json", by_alias=True), RESULT)
    return found


def _planned(config: RunConfig, labels: Sequence[str]) -> Plan:
    def load(spec: TaskSpec, seed: int) -> Task:
        task = labelled_task(spec, seed, [read_hand_off(where, spec) for where in labels])
        _check_rows(task, config)
        return task

    return make_plan(config, only_tasks=config.tasks.calibration, load=load)


def _check_rows(task: Task, config: RunConfig) -> None:
    largest, train, test = max(config.training.budgets), len(task.train), len(task.test)
    if largest > train:
        total = train + len(task.validation) + test
        raise DataError(
            f"{task.spec.label}: {total} labelled rows leave {train} to train on beside {test} to "
            f"score on and {len(task.validation)} for validation, and --budgets asks for "
            f"{largest}: label {largest - train} more or so, or lower --budgets"
        )


def _fingerprint(plan: Plan) -> dict[str, Any]:
    identity = plan.identity
    return {
        "model": identity["model"],
        "revision": identity["revision"],
        "template_hash": identity["chat_template"],
        "dtype": plan.config.model.dtype,
        "recipe": recipe_of(plan.config),
    }


def _check_model(known: Mapping[str, Any], measured: Mapping[str, Any], family: str) -> None:
    for field in ("model", "revision", "template_hash"):
        if field in known and known[field] != measured[field]:
            raise EstimateError(
                f"family {family!r} is of {field} {known[field]!r}, this is "
                f"{measured[field]!r}: its curves are not this model's; name the family's model, "
                "or leave --family out"
            )


def _recipe_line(config: RunConfig, known: Mapping[str, Any]) -> str:
    training, whose = config.training, "the family's" if known.get("recipe") else "the published"
    weights = f"LoRA of rank {training.lora.rank}" if training.method == "lora" else "all weights"
    return (
        f"recipe: {whose}: {weights}, learning rate {training.learning_rate:g}, at most "
        f"{training.max_steps} steps of {training.batch_size} examples, {config.model.dtype}"
    )


def _differences(known: Mapping[str, Any], measured: Mapping[str, Any]) -> Iterator[str]:
    """Where a fine-tune departs from those of the family."""
    if known.get("dtype", measured["dtype"]) != measured["dtype"]:
        yield f"dtype differs: the family's is {known['dtype']}, this is {measured['dtype']}"
    theirs: Any = (known.get("recipe") or {}).get("training", {})
    for name, value in measured["recipe"]["training"].items():
        if theirs.get(name, value) != value:
            yield f"training.{name} differs: the family's is {theirs[name]!r}, this is {value!r}"


def _notes(plan: Plan) -> Iterator[str]:
    (task,) = plan.tasks.values()
    if rounding := rounding_note(plan.config, load_architecture(plan.config.model)):
        yield rounding
    training, tested = plan.config.training, len(task.test_subset(plan.config.evaluation.test_cap))
    if tested < FEW_TEST_ROWS:
        yield (
            f"scores on {tested} rows have a standard error of up to {0.5 / tested**0.5:.2f}: more "
            "rows to score on would sharpen the answer (test_size in the task file)"
        )
    if len(training.seeds) > 1 and training.budgets[-1] == len(task.train):
        yield (
            f"every draw of {training.budgets[-1]} labels is all the rows there are to train on: "
            "its repeats differ by order and initialisation alone"
        )


def _written(
    plan: Plan, fingerprint: Mapping[str, Any], results: Mapping[Cell, Mapping[str, Any]]
) -> PilotFile:
    (task,) = plan.tasks.values()
    measured = sorted(results.items())
    (zero_shot,) = (result for cell, result in measured if not cell.budget)
    return PilotFile(
        task=task.name,
        fingerprint=dict(fingerprint),
        rows=plan.accounts[task.name].to_dict(),
        zero_shot=ScoreRow(score=zero_shot["score"], n_test=zero_shot["n_test"]),
        ceiling=task.spec.ceiling,
        pilots=tuple(
            PilotRow(labels=cell.budget, score=r["score"], n_test=r["n_test"], seed=cell.seed)
            for cell, r in measured
            if cell.budget
        ),
    )
