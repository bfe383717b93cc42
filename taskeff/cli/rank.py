"""Verb of the ranking: which of many data sets need the fewest labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from taskeff.cli.options import Dtype, Quiet

app = typer.Typer()


@app.command()
def rank(
    overrides: Annotated[list[str] | None, typer.Argument(help="key.sub=value overrides.")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="A YAML file.")] = None,
    manifest: Annotated[str | None, typer.Option(help="The data sets: see docs/rank.md.")] = None,
    model: Annotated[str | None, typer.Option(help="A Hugging Face id or folder.")] = None,
    family: Annotated[str | None, typer.Option(help="A calibration's folder or name.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder or URI of the ranking.")] = None,
    allow_local: Annotated[
        list[str] | None, typer.Option(help="A folder that entries may read beside the manifest's.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Stop at a bad entry of the manifest.")] = False,
    dtype: Dtype = None,
    local: Annotated[bool, typer.Option("--local", help="In this process, without Ray.")] = False,
    quiet: Quiet = False,
) -> None:
    """Rank many data sets by the labels they will need.

    With -c FILE the options may stand in the file; without it --manifest, --model, --family and
    --out are needed. Data sets are measured as the family was.
    """
    from taskeff.config_file import load_config
    from taskeff.rank_config import RankConfig
    from taskeff.run.ranking import rank as run
    from taskeff.run.ranking import ranking_config
    from taskeff.screen import Screen

    given = {"manifest": manifest, "family": family, "out": out}
    dotted = [f"{key}={value}" for key, value in given.items() if value is not None]
    if config is not None:
        if model is not None:
            dotted.append(f"model.path={model}")
        if dtype is not None:
            dotted.append(f"model.dtype={dtype}")
        if strict:
            dotted.append("strict=true")
        if allow_local:
            dotted.append(f"allow_local={json.dumps(allow_local)}")
        loaded = load_config(config, [*dotted, *(overrides or [])], RankConfig)
    else:
        values = {**given, "model": model, "strict": strict, "allow_local": allow_local or []}
        loaded = ranking_config(values, overrides or (), dtype=dtype)
    console = Screen(quiet=quiet)
    if local:
        from taskeff.run.inline import InProcess

        run(loaded, InProcess(), console)
    else:
        from taskeff.distributed.coslow import OnRay

        run(loaded, OnRay(), console)
