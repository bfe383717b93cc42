"""Verb of the pilots: small fine-tunes on the labels there are."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskeff.cli.options import AsJson, Dtype, Model, Quiet, TaskName, integers, show

if TYPE_CHECKING:
    from taskeff.estimate.pilots import PilotFile

app = typer.Typer()


@app.command()
def pilot(
    model: Model,
    task: TaskName,
    budgets: Annotated[str, typer.Option(help="Labels to fine-tune on: 8,32.")],
    out: Annotated[Path, typer.Option(help="Folder of pilots.json and what it is made from.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.sub=value overrides.")] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(help="A folder of `select`, labelled by now, or a file in it."),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(help="Fine-tune as this family was: its name, folder or file."),
    ] = None,
    draws: Annotated[int, typer.Option(help="Repeat over so many draws of the rows.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the task's splits.")] = 0,
    dtype: Dtype = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="On Ray (RAY_ADDRESS, or a local one), not here.")
    ] = False,
    only_plan: Annotated[bool, typer.Option("--plan", help="Only say what it costs.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune on a few of the labels there are and score the rest: evidence for `predict`.

    Stopped and started again it goes on where it was; more budgets or draws measure only those.
    """
    from taskeff.run.pilot import RESULT, pilot_config
    from taskeff.run.pilot import pilot as run
    from taskeff.screen import Screen

    config = pilot_config(
        model,
        task,
        integers("--budgets", budgets) or [],
        str(out),
        family=family,
        dtype=dtype,
        draws=draws,
        seed=seed,
        cluster={} if ray else _this_machine(),
        overrides=overrides or (),
    )
    console = Screen(stderr=as_json, quiet=quiet)
    found = run(
        config,
        labels=labels or (),
        family=family,
        executor=_executor(ray),
        console=console,
        only_plan=only_plan,
    )
    if found is None:
        return
    if as_json:
        show(found.model_dump(mode="json", by_alias=True), True)
        return
    for line in _table(found):
        print(line)
    if quiet:
        return
    print(f"written to {out / RESULT}; what it says of labels needed:")
    print(f"  {_next(out / RESULT, family)}")


def _executor(ray: bool) -> Any:
    if ray:
        from taskeff.distributed.executor import RayExecutor

        return RayExecutor
    from taskeff.run.inline import InlineExecutor

    return InlineExecutor


def _this_machine() -> dict[str, Any]:
    """One cell after the other, on the GPU if there is one, else on torch's threads."""
    import torch

    return {
        "max_concurrent_jobs": 1,
        "threads_per_worker": torch.get_num_threads(),
        "gpus_per_worker": 1 if torch.cuda.is_available() else 0,
    }


def _table(found: PilotFile) -> list[str]:
    drawn = {row.seed for row in found.pilots}
    zero = found.zero_shot
    first = [] if zero is None else [f"     0 labels: score {zero.score:.3f} on {zero.n_test} rows"]
    return first + [
        f"{row.labels:>6} labels: score {row.score:.3f} on {row.n_test} rows"
        + (f", draw {row.seed}" if len(drawn) > 1 else "")
        for row in found.pilots
    ]


def _next(pilots: Path, family: str | None) -> str:
    words = ["taskeff", "predict", *(["--family", family] if family else [])]
    if (scored := pilots.with_name("coslow.json")).exists():
        words += ["--scored", str(scored)]
    return shlex.join([*words, "--pilots", str(pilots), "--target", "0.9"])
