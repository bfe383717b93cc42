"""Verbs of the signal: select what to label, score CoS-Low."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from taskeff.cli.options import AsJson, Dtype, Family, Model, show

app = typer.Typer()
SUSPECTS = 5  # ids shown


@app.command()
def select(
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder for the files to label.")],
    task: Annotated[str | None, typer.Option(help="A bundled task or a task file.")] = None,
    pool: Annotated[
        Path | None, typer.Option(help="Instead of --task: JSON of rendered prompts (input_text).")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Instead of --task: a CSV, JSON or Parquet file; OUT/task.yaml is made."),
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="With --data: the column to ask about, or a template.")
    ] = None,
    choices: Annotated[str | None, typer.Option(help="With --data: every answer: a,b,c.")] = None,
    instruction: Annotated[
        str | None, typer.Option(help="With --data: what the model is told to do.")
    ] = None,
    family: Family = None,
    n: Annotated[int | None, typer.Option(help="Examples to label; default 32.")] = None,
    quantile: Annotated[
        float | None, typer.Option(help="Share of the pool drawn from; default 0.1.")
    ] = None,
    strategy: Annotated[str | None, typer.Option(help="low (the default) or random.")] = None,
    metric: Annotated[str | None, typer.Option(help="mean_top_prob (default) or ppl.")] = None,
    on_long: Annotated[
        str | None,
        typer.Option(help="Prompts beyond the model's window: skip (default) or truncate."),
    ] = None,
    form: Annotated[str, typer.Option("--format", help="jsonl, label-studio or csv.")] = "jsonl",
    targets: Annotated[
        str | None, typer.Option(help="Linears to take gradients of: q_proj,v_proj; default all.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the draw; default 0.")] = None,
    pool_cap: Annotated[int | None, typer.Option(help="Score at most so many rows.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Tokens of an answer; default 30, or the task's own limit.")
    ] = None,
    dtype: Dtype = None,
) -> None:
    """Choose which examples of an unlabelled pool to label.

    With --family everything not given is as the family was measured, so that `predict` can compare.
    """
    from taskeff.coslow import confidence, handoff
    from taskeff.coslow import select as selection
    from taskeff.run import labelling

    one_of("--format", form, handoff.Form)
    for option, value, allowed in (
        ("--strategy", strategy, selection.Strategy),
        ("--metric", metric, confidence.Metric),
        ("--on-long", on_long, confidence.OnLong),
    ):
        if value is not None:
            one_of(option, value, allowed)
    given = {
        "n_examples": n,
        "quantile": quantile,
        "strategy": strategy,
        "confidence_metric": metric,
        "on_long": on_long,
        "targets": targets.split(",") if targets else None,
        "seed": seed,
        "pool_cap": pool_cap,
        "max_new_tokens": max_new_tokens,
    }
    task = _task(out, task, data, text, choices, instruction)
    with _progress("confidence") as progress:
        found = labelling.select(
            model,
            task,
            out,
            {name: value for name, value in given.items() if value is not None},
            pool=pool,
            family=family,
            dtype=dtype,
            form=form,  # type: ignore[arg-type]
            progress=progress,
        )
    for line in labelling.pool_lines(found):
        print(line)
    files = list(handoff.hand_off([], form, None))  # type: ignore[arg-type]
    names = " with ".join(str(out / name) for name in files)
    print(f"label the {len(found['rows'])} rows of {names} (`taskeff label {out}`), then:")
    labels = " --labels EXPORT.json" if form == "label-studio" else ""
    print(f"  taskeff score --model {model} --out {out}{labels}")


def _task(
    out: Path,
    task: str | None,
    data: str | None,
    text: str | None,
    choices: str | None,
    instruction: str | None,
) -> str | None:
    """The task named, or the file written for the data named in its place."""
    from taskeff.errors import ConfigError
    from taskeff.tasks.from_data import write_task

    if data is None:
        if text or choices or instruction:
            raise ConfigError("--text, --choices and --instruction go with --data")
        return task
    if task is not None:
        raise ConfigError("give either a task (--task) or a file of rows (--data)")
    if text is None:
        raise ConfigError("--text is missing: name the column to ask about")
    answers = [answer.strip() for answer in choices.split(",")] if choices else []
    path = write_task(out, data, text, answers, instruction)
    print(f"task file: {path}")
    return str(path)


@app.command()
def score(
    model: Annotated[str, typer.Option(help="The model that `select` used.")],
    out: Annotated[Path, typer.Option(help="The folder that `select` wrote.")],
    labels: Annotated[
        Path | None, typer.Option(help="The labelled file, if elsewhere: .jsonl, .json or .csv.")
    ] = None,
    dtype: Dtype = None,
    kernel: Annotated[
        bool,
        typer.Option(
            "--kernel", help="Also what a fine-tune on these labels would score; takes longer."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """CoS-Low of the labelled examples; with --kernel a pilot without a fine-tune."""
    from taskeff.run.labelling import score as measure

    found = measure(model, out, labels, dtype=dtype, kernel=kernel)
    if as_json:
        show(found, True)
        return
    for line in [*score_lines(found), *(kernel_lines(found["kernel"]) if kernel else ())]:
        print(line)
    print(f"written to {out}/coslow.json; what it says of labels needed:")
    print(f"  taskeff predict --family FAMILY --scored {out}/coslow.json --target 0.9")


def score_lines(found: dict[str, Any]) -> list[str]:
    """`coslow.json` for a person to read."""
    from taskeff.tasks.account import Account

    low, high, n = found["cos_low_low"], found["cos_low_high"], found["n_examples"]
    account = found["rows"]
    lines = [
        *Account(account["rows"], account["left_out"], escaped=account["escaped"]).lines("labels"),
        f"CoS-Low of {found['task']}: {found['cos_low']:.3f} [{low:.2f}, {high:.2f}] "
        f"({found['level']:.0%}), the median cosine between the gradients of {n} examples; their "
        f"mean is {found['mean_cosine']:.3f}"
        + (
            ""
            if found["balanced_cosine"] is None
            else f", {found['balanced_cosine']:.3f} is the median with labels weighted equally"
        ),
    ]
    if found["excluded"]:
        lines.append(f"left out, without a gradient: {', '.join(found['excluded'])}")
    if found["duplicates"]:
        pairs = ", ".join(" and ".join(pair) for pair in found["duplicates"])
        lines.append(f"alike, each pair counts twice: {pairs}")
    if found["labels_seen"] == 1:
        lines.append("warning: all examples have one and the same label")
    return lines


def kernel_lines(found: dict[str, Any]) -> list[str]:
    """A `KernelPilot` for a person to read."""
    low, high = found["interval"]
    n = found["n_rows"]
    curve = ", ".join(f"{p['accuracy']:.2f} at {p['n']}" for p in found["curve"])
    lines = [
        f"kernel: a fine-tune on {n - 1} of these labels would get {found['accuracy']:.2f} of the "
        f"others right [{low:.2f}, {high:.2f}] ({found['level']:.0%}), macro F1 "
        f"{found['macro_f1']:.2f}",
        f"  by labels: {curve}",
    ]
    if found["suspects"]:
        shown = ", ".join(found["suspects"][:SUSPECTS])
        lines.append(f"  labels that the others speak against, the least likely first: {shown}")
    return lines


def one_of(option: str, value: str, allowed: Any) -> None:
    """Refuse a value that the literal type `allowed` does not list.

    Raises:
        ConfigError: naming the option and what it may be.
    """
    from taskeff.errors import ConfigError

    known = get_args(allowed)
    if value not in known:
        raise ConfigError(f"{option} {value!r}: use {', '.join(known[:-1])} or {known[-1]}")


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int], None]]:
    """A bar on standard error where that is a terminal."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from taskeff.screen import Screen

    console = Screen(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed} rows"))
    bar = Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal)
    with bar:
        task = bar.add_task(what, total=None)
        yield lambda done: bar.update(task, completed=done)
