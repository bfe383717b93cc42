"""Verbs of the signal: select what to label, score CoS-Low."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from taskeff.cli.options import AsJson, Dtype, Model, show

app = typer.Typer()


@app.command()
def select(
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder for the files to label.")],
    task: Annotated[str | None, typer.Option(help="A bundled task or a task file.")] = None,
    pool: Annotated[
        Path | None, typer.Option(help="Instead of --task: JSON of rendered prompts (input_text).")
    ] = None,
    n: Annotated[int, typer.Option(help="Examples to label.")] = 32,
    quantile: Annotated[float, typer.Option(help="Share of the pool drawn from.")] = 0.1,
    strategy: Annotated[str, typer.Option(help="low, lowest or random.")] = "low",
    metric: Annotated[str, typer.Option(help="mean_top_prob or ppl.")] = "mean_top_prob",
    repeats: Annotated[int, typer.Option(help="Sampled answers per row; 1 is greedy.")] = 1,
    on_long: Annotated[
        str, typer.Option(help="Prompts beyond the model's window: error, skip or truncate.")
    ] = "error",
    form: Annotated[str, typer.Option("--format", help="jsonl, label-studio or csv.")] = "jsonl",
    targets: Annotated[
        str | None, typer.Option(help="Linears to take gradients of: q_proj,v_proj; default all.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    pool_cap: Annotated[int | None, typer.Option(help="Score at most so many rows.")] = None,
    dtype: Dtype = "float32",
) -> None:
    """Choose which examples of an unlabelled pool to label."""
    from taskeff.coslow import confidence, handoff, workflow
    from taskeff.coslow import select as selection
    from taskeff.models import model_config

    one_of("--strategy", strategy, selection.Strategy)
    one_of("--metric", metric, confidence.Metric)
    one_of("--on-long", on_long, confidence.OnLong)
    one_of("--format", form, handoff.Form)
    settings = _settings(
        n_examples=n,
        quantile=quantile,
        seed=seed,
        pool_cap=pool_cap,
        confidence_metric=metric,
        targets=targets.split(",") if targets else None,
    )
    with _progress("confidence") as progress:
        rows = workflow.select(
            model_config(model, dtype),
            task,
            out,
            settings,
            pool=pool,
            strategy=strategy,  # type: ignore[arg-type]
            on_long=on_long,  # type: ignore[arg-type]
            repeats=repeats,
            form=form,  # type: ignore[arg-type]
            progress=progress,
        )
    files = list(handoff.hand_off([], form, None))  # type: ignore[arg-type]
    print(
        f"label the {len(rows)} rows of {' with '.join(str(out / name) for name in files)}, then:"
    )
    labels = " --labels EXPORT.json" if form == "label-studio" else ""
    print(f"  taskeff score --model {model} --out {out}{labels}")


@app.command()
def score(
    model: Annotated[str, typer.Option(help="The model that `select` used.")],
    out: Annotated[Path, typer.Option(help="The folder that `select` wrote.")],
    labels: Annotated[
        Path | None, typer.Option(help="The labelled file, if elsewhere: .jsonl, .json or .csv.")
    ] = None,
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """CoS-Low of the labelled examples."""
    from taskeff.coslow.workflow import score as measure
    from taskeff.models import model_config

    show(measure(model_config(model, dtype), out, labels), as_json)


def one_of(option: str, value: str, allowed: Any) -> None:
    """Refuse a value that the literal type `allowed` does not list.

    Raises:
        ConfigError: naming the option and what it may be.
    """
    from taskeff.errors import ConfigError

    known = get_args(allowed)
    if value not in known:
        raise ConfigError(f"{option} {value!r}: use {', '.join(known[:-1])} or {known[-1]}")


def _settings(**values: Any) -> Any:
    from pydantic import ValidationError

    from taskeff.config import CosLowConfig
    from taskeff.errors import ConfigError

    try:
        return CosLowConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{first['loc'][0]}: {first['msg']}") from None


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error where that is a terminal."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
