"""The command line: parse, call the library, print. One verb per step of the workflow."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from taskeff.errors import TaskeffError

app = typer.Typer(
    help="How many labelled examples will this task need?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
curves_app = typer.Typer(help="Measured curves: import, show.", no_args_is_help=True)
app.add_typer(curves_app, name="curves")

ConfigPath = Annotated[Path, typer.Option("--config", "-c", help="The run's YAML file.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key.sub=value overrides.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def main() -> None:
    """Entry point: a TaskeffError is one line on standard error and exit code 2."""
    try:
        app()
    except TaskeffError as error:
        line = Text.assemble(("error:", "bold red"), f" {error}")
        Console(stderr=True).print(line, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; the same command goes on where this one ended")
        sys.exit(130)


def _config(path: Path, overrides: list[str] | None) -> Any:
    from taskeff.config import load_config

    return load_config(path, overrides or [])


def _split(value: str | None) -> list[str] | None:
    return [part.strip() for part in value.split(",") if part.strip()] if value else None


@app.command()
def validate(config: ConfigPath, overrides: Overrides = None) -> None:
    """Check everything that can be checked before a worker is asked for."""
    from taskeff.curves.plan import make_plan

    plan = make_plan(_config(config, overrides))
    for task in plan.tasks.values():
        print(
            f"{task.name:<28} {len(task.train):>6} train {len(task.validation):>5} validation "
            f"{len(task.test):>5} test"
        )
    print(f"{len(plan.tasks)} tasks and {len(plan.cells)} cells are ready to run")


@app.command()
def plan(config: ConfigPath, overrides: Overrides = None) -> None:
    """Say what a run would measure, and what is measured already."""
    from taskeff.curves.plan import make_plan

    made = make_plan(_config(config, overrides))
    rows = made.pending()
    todo = sum(len(row.budgets) for row in rows)
    print(f"{len(made.cells)} cells: {len(made.cells) - todo} done, {todo} to measure")
    for row in rows:
        budgets = ", ".join(map(str, row.budgets))
        print(f"  {row.task:<28} seed {row.seed}  budgets {budgets}")


@app.command()
def calibrate(
    config: ConfigPath,
    overrides: Overrides = None,
    tasks: Annotated[str | None, typer.Option(help="Only these tasks: a,b.")] = None,
    budgets: Annotated[str | None, typer.Option(help="Only these budgets: 50,100.")] = None,
) -> None:
    """Measure curves and CoS-Low, fit the family, predict the held-out tasks, write the report.

    With --tasks or --budgets only those cells are trained and published.
    """
    loaded = _config(config, overrides)
    from taskeff.distributed import driver

    only_budgets = _integers("--budgets", budgets)
    if tasks or only_budgets:
        driver.measure_cells(loaded, only_tasks=_split(tasks), only_budgets=only_budgets)
    else:
        driver.calibrate(loaded)


def _integers(option: str, value: str | None) -> list[int] | None:
    from taskeff.errors import ConfigError

    try:
        return [int(part) for part in _split(value) or []] or None
    except ValueError:
        raise ConfigError(f"{option} {value!r}: give whole numbers, like 50,100") from None


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="A Hugging Face id or folder.")],
    task: Annotated[str, typer.Option(help="A bundled task's name or a task file.")],
    test_cap: Annotated[int, typer.Option(help="Score at most so many test rows.")] = 5000,
    seed: Annotated[int, typer.Option(help="Seed of the task's splits.")] = 0,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    as_json: AsJson = False,
) -> None:
    """Score an existing checkpoint on a task's test split."""
    from taskeff.curves.evaluate import evaluate as score
    from taskeff.models import load_model, load_tokenizer, model_config
    from taskeff.tasks.prompts import Prompter
    from taskeff.tasks.task import load_spec, load_task

    loaded = load_task(load_spec(task), seed)
    named = model_config(model, dtype)
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
    _print(answer, as_json)


@app.command()
def select(
    model: Annotated[str, typer.Option(help="A Hugging Face id or folder.")],
    task: Annotated[str, typer.Option(help="A bundled task's name or a task file.")],
    out: Annotated[Path, typer.Option(help="Folder for the files to label.")],
    n: Annotated[int, typer.Option(help="Examples to label.")] = 32,
    quantile: Annotated[float, typer.Option(help="Share of the pool drawn from.")] = 0.1,
    strategy: Annotated[str, typer.Option(help="low, lowest or random.")] = "low",
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    pool_cap: Annotated[int | None, typer.Option(help="Score at most so many rows.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
) -> None:
    """Choose which examples of an unlabelled pool to label."""
    from pydantic import ValidationError

    from taskeff.config import CosLowConfig
    from taskeff.coslow.workflow import select as choose
    from taskeff.errors import ConfigError
    from taskeff.models import model_config

    if strategy not in ("low", "lowest", "random"):
        raise ConfigError(f"--strategy {strategy!r}: use low, lowest or random")
    try:
        settings = CosLowConfig(n_examples=n, quantile=quantile, seed=seed, pool_cap=pool_cap)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{first['loc'][0]}: {first['msg']}") from None
    rows = choose(model_config(model, dtype), task, out, settings, strategy=strategy)
    print(f"fill `label` in the {len(rows)} lines of {out / 'to_annotate.jsonl'}, then:")
    print(f"  taskeff score --model {model} --out {out}")


@app.command()
def score(
    model: Annotated[str, typer.Option(help="The model that `select` used.")],
    out: Annotated[Path, typer.Option(help="The folder that `select` wrote.")],
    labels: Annotated[Path | None, typer.Option(help="The labelled file, if elsewhere.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    as_json: AsJson = False,
) -> None:
    """CoS-Low of the labelled examples."""
    from taskeff.coslow.workflow import score as measure
    from taskeff.models import model_config

    _print(measure(model_config(model, dtype), out, labels), as_json)


@app.command()
def predict(
    family: Annotated[str, typer.Option(help="A family's name, folder or calibration.json.")],
    cos_low: Annotated[float | None, typer.Option(help="CoS-Low as a bare number.")] = None,
    scored: Annotated[Path | None, typer.Option(help="coslow.json of `taskeff score`.")] = None,
    target: Annotated[float, typer.Option(help="Share of zero-shot to ceiling.")] = 0.9,
    target_score: Annotated[float | None, typer.Option(help="The target as a score.")] = None,
    zero_shot: Annotated[float | None, typer.Option(help="With --target-score.")] = None,
    ceiling: Annotated[float, typer.Option(help="With --target-score.")] = 1.0,
    curve: Annotated[str | None, typer.Option(help="power or beta; default: the family's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Labels needed for a target, from a family's calibration and a task's CoS-Low."""
    from taskeff.errors import ConfigError
    from taskeff.estimate.budget import predict as estimate
    from taskeff.estimate.budget import target_share
    from taskeff.estimate.calibration import Calibration

    if (cos_low is None) == (scored is None):
        raise ConfigError("give either --cos-low NUMBER or --scored coslow.json")
    measured = None
    if scored is not None:
        from taskeff.store import Store

        record = Store(str(scored.parent)).read_json(scored.name)
        cos_low, measured = record["cos_low"], record["fingerprint"]
    if target_score is not None:
        if zero_shot is None:
            raise ConfigError("--target-score needs --zero-shot, the score before any fine-tune")
        target = target_share(target_score, zero_shot=zero_shot, ceiling=ceiling)
    if curve not in (None, "power", "beta"):
        raise ConfigError(f"--curve {curve!r}: use power or beta")
    found = estimate(
        Calibration.load(family), cos_low or 0.0, target=target, curve=curve, fingerprint=measured
    ).to_dict()
    if target_score is not None:
        found["target_score"] = target_score
    if as_json:
        _print(found, True)
        return
    _say(found)


def _say(found: dict[str, Any]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    share = f"{100 * found['target']:.3g} % of the way from zero-shot to the ceiling"
    if found["reachable"]:
        console.print(f"about {found['labels_needed']} labels reach {share}")
    else:
        console.print(f"{share} is not reachable within the cap of {found['cap']} labels")
    if found["interval"]:
        low, high = found["interval"]
        upper = "beyond the cap" if high is None else f"{high:.0f}"
        console.print(f"{100 * found['level']:.0f} % interval: {low:.0f} to {upper}")
    else:
        console.print(f"no interval: {found['interval_reason']}")
    console.print(f"data efficiency (AUC) {found['auc']:.3f}, curve {found['curve']}")
    for warning in found["warnings"]:
        console.print(Text.assemble(("warning:", "yellow"), f" {warning}"))


@curves_app.command("import")
def import_curves(
    folder: Annotated[Path, typer.Argument(help="Folder of {task}.json result files.")],
    output: Annotated[Path, typer.Option(help="Where to write the areas (JSON).")],
    ceilings: Annotated[Path | None, typer.Option(help="JSON of human scores per task.")] = None,
    cap: Annotated[int, typer.Option(help="The largest budget considered.")] = 5000,
) -> None:
    """Areas of curves in the published results layout, by the published arithmetic."""
    from taskeff.curves.published import import_results
    from taskeff.store import Store

    found = import_results(folder, ceilings, cap=cap)
    Store(str(output.parent)).write_json(found, output.name)
    print(f"{len(found['tasks'])} tasks written to {output}")


@app.command()
def report(config: ConfigPath, overrides: Overrides = None) -> None:
    """Write the page again from the run's artefacts."""
    from taskeff.report.collect import write_report
    from taskeff.store import Store

    loaded = _config(config, overrides)
    print(write_report(Store(loaded.storage).child(loaded.name)))


def _print(values: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(values, indent=1, sort_keys=True))
        return
    for key, value in values.items():
        print(f"{key:<16} {value:.4g}" if isinstance(value, float) else f"{key:<16} {value}")


if __name__ == "__main__":
    main()
