"""Verbs of the signal: select what to label, score CoS-Low."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taskeff.cli.options import AsJson, Dtype, Model, TaskName, show

app = typer.Typer()


@app.command()
def select(
    model: Model,
    task: TaskName,
    out: Annotated[Path, typer.Option(help="Folder for the files to label.")],
    n: Annotated[int, typer.Option(help="Examples to label.")] = 32,
    quantile: Annotated[float, typer.Option(help="Share of the pool drawn from.")] = 0.1,
    strategy: Annotated[str, typer.Option(help="low, lowest or random.")] = "low",
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    pool_cap: Annotated[int | None, typer.Option(help="Score at most so many rows.")] = None,
    dtype: Dtype = "float32",
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
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """CoS-Low of the labelled examples."""
    from taskeff.coslow.workflow import score as measure
    from taskeff.models import model_config

    show(measure(model_config(model, dtype), out, labels), as_json)
