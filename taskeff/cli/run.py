"""Verbs of a run: validate, plan, calibrate, evaluate, report."""

from __future__ import annotations

import shlex
from pathlib import Path
from textwrap import indent
from typing import Annotated, Any

import typer

from taskeff.cli.options import (
    AsJson,
    Dtype,
    Model,
    Quiet,
    TaskName,
    integers,
    shorten,
    show,
    split,
)
from taskeff.errors import ConfigError, redact

app = typer.Typer()

ConfigPath = Annotated[Path, typer.Option("--config", "-c", help="The run's YAML file.")]
Archive = Annotated[Path, typer.Option("--file", help="The results, JSON lines.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key.sub=value overrides.")]


def _config(path: Path, overrides: list[str] | None) -> Any:
    from taskeff.config_file import load_config

    return load_config(path, overrides or [])


@app.command()
def validate(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="The run's YAML file.")
    ] = None,
    overrides: Overrides = None,
    pool: Annotated[
        str | None,
        typer.Option("--task", help="Instead of -c: one task, labelled or not, for `select`."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="With --task: a model's id or folder.")] = None,
    online: Annotated[bool, typer.Option(help="Ask the hub about ids and columns too.")] = False,
    examples: Annotated[bool, typer.Option(help="Print one rendered row per task.")] = True,
) -> None:
    """Check everything that can fail before a worker is asked for; show one prompt per task.

    The answer, which alone bears the loss, stands between ⟦ and ⟧.
    """
    if (config is None) == (pool is None) or (pool is None) != (model is None):
        raise ConfigError("give a run (-c), or a task with its model (--task, --model)")
    if config is None:
        _validate_pool(str(pool), str(model))
        return
    from taskeff.errors import together
    from taskeff.run.validate import validate as check

    loaded = _config(config, overrides)
    found = check(loaded, online=online)
    for task in found.tasks:
        train, validation, test = task.rows
        budgets = ", ".join(map(str, task.budgets))
        longest = "" if task.longest is None else f"; longest prompt and answer {task.longest}"
        print(task.label)
        print(f"  {train} train, {validation} validation, {test} test; budgets {budgets}{longest}")
        for line in task.account.lines("rows"):
            print(f"  {line}")
        if examples and task.example:
            print(indent(shorten(task.example[0]) + f"⟦{task.example[1]}⟧", "  | ", lambda _: True))
    if found.parameters is not None:
        limit = "no window" if found.window is None else f"a window of {found.window}"
        print(f"model: {found.parameters / 1e9:.3g} billion parameters, {limit}")
    if found.need is not None:
        print(f"a job needs {found.need}")
    for note in found.notes:
        print(f"note: {note}")
    if found.problems:
        raise together(found.problems)
    print(f"{len(found.tasks)} tasks and {found.cells} cells are ready to run")
    _next("plan", config, overrides)


def _validate_pool(task: str, model: str) -> None:
    from taskeff.models import model_config
    from taskeff.run.pool_check import check_pool

    found = check_pool(task, model_config(model))
    for line in found.lines():
        print(line)
    print(indent(shorten(found.example), "  | ", lambda _: True))


@app.command()
def plan(config: ConfigPath, overrides: Overrides = None) -> None:
    """Say what a run would measure and what that takes; refuse what can never be placed."""
    from taskeff.run.cost import forecast, lines
    from taskeff.run.plan import make_plan

    made = make_plan(_config(config, overrides))
    for note in made.notes:
        print(f"note: {note}")
    results = made.results()
    for line in lines(made.config, forecast(made, results)):
        print(line)
    if made.config.grid == "adaptive":
        from taskeff.run.adaptive import outlook

        print(outlook(made, results))
    _next("calibrate", config, overrides)


def _next(verb: str, config: Path, overrides: list[str] | None) -> None:
    print("next:", shlex.join(["taskeff", verb, "-c", str(config), *(overrides or [])]))


@app.command()
def calibrate(
    configs: Annotated[
        list[Path],
        typer.Option("--config", "-c", help="The run's YAML file; several: one after the other."),
    ],
    overrides: Overrides = None,
    tasks: Annotated[str | None, typer.Option(help="Only these tasks: a,b.")] = None,
    budgets: Annotated[str | None, typer.Option(help="Only these budgets: 50,100.")] = None,
    local: Annotated[bool, typer.Option("--local", help="In this process, without Ray.")] = False,
    part: Annotated[str | None, typer.Option(help="With --local, a share of it: 0/2, 1/2.")] = None,
    quiet: Quiet = False,
) -> None:
    """Measure curves and CoS-Low, fit the family, predict the held-out tasks, write the report.

    With --tasks or --budgets only those cells are trained and published. --local needs no Ray and
    measures seed by seed, cheap cells first. Several -c end in a page that compares the families.
    """
    from taskeff.run.driver import calibrate as run
    from taskeff.screen import Screen

    if local or part:
        from taskeff.run.inline import InlineExecutor as Executor
    else:
        from taskeff.distributed.executor import RayExecutor as Executor
    from taskeff.storage import Store

    console = Screen(quiet=quiet)
    loaded = [_config(config, overrides) for config in configs]
    if len(loaded) > 1:
        from taskeff.run.families import calibrate_families

        if part or tasks or budgets:
            raise ConfigError("--part, --tasks and --budgets go with one configuration")
        calibrate_families(loaded, Executor, console)
        return
    found = run(
        loaded[0],
        Executor,
        console,
        part=_part(part),
        only_tasks=split(tasks),
        only_budgets=integers("--budgets", budgets),
    )
    if found is not None and not quiet:
        family = redact(Store(loaded[0].storage).child(loaded[0].name).uri)
        words = ["taskeff", "select", "--family", family, "--model", loaded[0].model.path]
        print("next:", shlex.join([*words, "--task", "TASK.yaml", "--out", "OUT"]))


def _part(value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    first, _, count = value.partition("/")
    if not (first.isdecimal() and count.isdecimal()):
        raise ConfigError(f"--part {value!r}: give i/n, like 0/2 and 1/2")
    return int(first), int(count)


@app.command()
def evaluate(
    model: Model,
    task: TaskName,
    test_cap: Annotated[int, typer.Option(help="Score at most so many test rows.")] = 5000,
    seed: Annotated[int, typer.Option(help="Seed of the task's splits.")] = 0,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """Score an existing checkpoint on a task's test split."""
    from taskeff.finetune.evaluate import evaluate as score
    from taskeff.models import load_model, load_tokenizer, named_model
    from taskeff.tasks.prompts import Prompter
    from taskeff.tasks.task import load_spec, load_task

    loaded = load_task(load_spec(task), seed)
    named = named_model(model, dtype)
    prompter = Prompter(load_tokenizer(named), loaded.spec.description)
    rows = loaded.test_subset(test_cap)
    found = score(load_model(named), prompter, loaded.spec, rows, max_tokens=4096)
    answer = {
        "task": loaded.name,
        "metric": loaded.spec.metric,
        "score": found.score,
        "label_score": found.label_score,
        "n_test": found.n_test,
    }
    show(answer, as_json)


@app.command()
def report(config: ConfigPath, overrides: Overrides = None) -> None:
    """Write the page again from the run's artefacts."""
    from taskeff.report.collect import write_report
    from taskeff.storage import Store

    loaded = _config(config, overrides)
    print(write_report(Store(loaded.storage).child(loaded.name)))


@app.command("export")
def export_run(config: ConfigPath, out: Archive, overrides: Overrides = None) -> None:
    """Write every finished result of a run into one small file."""
    from taskeff.run.archive import export_results
    from taskeff.run.plan import make_plan
    from taskeff.storage import Store

    data = export_results(make_plan(_config(config, overrides)))
    Store(str(out.parent)).write_bytes(data, out.name)
    print(f"{len(data.splitlines())} results written to {out}")


@app.command("import")
def import_run(config: ConfigPath, archive: Archive, overrides: Overrides = None) -> None:
    """Take the finished results of such a file over, so that they are not measured again."""
    from taskeff.run.archive import import_results
    from taskeff.run.plan import make_plan
    from taskeff.storage import Store

    made = make_plan(_config(config, overrides))
    data = Store(str(archive.parent)).read_bytes(archive.name)
    found = import_results(made, data, str(archive))
    print(
        f"{found.added} results taken over, {found.known} were there already, "
        f"{found.foreign} belong to other settings or tasks"
    )
