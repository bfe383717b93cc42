"""Verbs of the estimate: predict labels needed, import and show measured curves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from taskeff.cli.options import AsJson, show
from taskeff.screen import Screen

if TYPE_CHECKING:
    from taskeff.estimate.budget import Estimate
    from taskeff.estimate.sharpen import Sharpening

app = typer.Typer()
curves_app = typer.Typer(help="Measured curves: import, show.", no_args_is_help=True)
app.add_typer(curves_app, name="curves")


@app.command()
def predict(
    family: Annotated[
        str, typer.Option(help="A family's name, folder or calibration.json.")
    ] = "generic",
    cos_low: Annotated[float | None, typer.Option(help="CoS-Low as a bare number.")] = None,
    scored: Annotated[Path | None, typer.Option(help="coslow.json of `taskeff score`.")] = None,
    target: Annotated[float, typer.Option(help="Share of zero-shot to ceiling.")] = 0.9,
    target_score: Annotated[float | None, typer.Option(help="The target as a score.")] = None,
    zero_shot: Annotated[
        str | None, typer.Option(help="The score before fine-tuning, SCORE[:N_TEST].")
    ] = None,
    ceiling: Annotated[
        float | None,
        typer.Option(help="The best score to hope for, if known; 1 with --target-score."),
    ] = None,
    curve: Annotated[str | None, typer.Option(help="power or beta; default: the family's.")] = None,
    pilot: Annotated[
        list[str] | None,
        typer.Option(help="A fine-tune made already, BUDGET:SCORE[:N_TEST]; repeatable."),
    ] = None,
    pilots: Annotated[
        Path | None,
        typer.Option(help="pilots.json of `taskeff pilot`, or .csv: labels, score, n_test."),
    ] = None,
    sibling: Annotated[
        str | None,
        typer.Option(help="This task's curve on another model: a result file, or FAMILY:TASK."),
    ] = None,
    price_per_label: Annotated[float, typer.Option(help="In your currency.")] = 0.0,
    gpu_hour_price: Annotated[float, typer.Option(help="In your currency.")] = 0.0,
    hours_per_label: Annotated[
        float, typer.Option(help="GPU-hours of a fine-tune per label trained on.")
    ] = 0.0,
    hours_fixed: Annotated[float, typer.Option(help="GPU-hours of any fine-tune besides.")] = 0.0,
    value: Annotated[
        float | None,
        typer.Option(help="What the whole way to the ceiling is worth to you; gives advice."),
    ] = None,
    labelled: Annotated[
        int | None, typer.Option(help="Labels made already; default: the largest pilot.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random draws.")] = 0,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the curve and its band here (.svg or .png).")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the answer as a page here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Labels needed for a target, from any of a task's CoS-Low, pilots and sibling."""
    from dataclasses import asdict

    from taskeff.errors import ConfigError
    from taskeff.estimate.advice import Prices, outlook
    from taskeff.estimate.question import question
    from taskeff.estimate.sharpen import sharpenings

    if pilot and pilots is not None:
        raise ConfigError("give pilots either by --pilot or by --pilots FILE, not by both")
    asked = question(
        family,
        cos_low,
        scored=scored,
        target=target,
        target_score=target_score,
        curve=curve,
        pilots=pilots or pilot or (),
        zero_shot=zero_shot,
        ceiling=ceiling,
        sibling=sibling,
        seed=seed,
    )
    found = asked.answer()
    if labelled is None:
        labelled = max((p.budget for p in found.pilots), default=0)
    prices = Prices(price_per_label, gpu_hour_price, hours_per_label, hours_fixed)
    further = outlook(found, prices=prices, value=value, labelled=labelled)
    options = sharpenings(
        asked.calibration, found, prices=prices, labelled=labelled, next_pilot=further["next_pilot"]
    )
    if plot is not None:
        found.plot(plot)
    if html is not None:
        from taskeff.report.answer import AnswerData, write_answer

        page = AnswerData(
            asked.calibration,
            found,
            task=asked.task,
            outlook=further,
            value=value,
            asked=asked.options,
            options=options,
            sources={
                name: file.name for name, file in (("CoS-Low", scored), ("Pilots", pilots)) if file
            },
        )
        write_answer(page, html)
    if not as_json:
        return _say(found, further, options)
    answer = {**found.to_dict(), **further, "sharpen": [asdict(option) for option in options]}
    if target_score is not None:
        answer["target_score"] = target_score
    show(answer, True)


def _say(estimate: Estimate, further: dict[str, Any], options: list[Sharpening]) -> None:
    from taskeff.estimate import words

    console = Screen(soft_wrap=True, highlight=False, markup=False)
    console.print(words.headline(estimate))
    console.print(words.uncertainty(estimate))
    console.print(words.efficiency(estimate))
    prices = further["prices"]
    if further["cost"]:
        console.print(f"cost from here: {words.spent(further['cost'], prices)}")
    if further["advice"]:
        console.print(f"advice: {words.advised(further['advice'], prices)}")
    if options:
        console.print("what would sharpen this, the most first:")
    for option in options:
        console.print(f"  {words.sharpened(option, further['labelled'], prices)}")
    for warning in estimate.warnings:
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
    from taskeff.storage import Store

    found = import_results(folder, ceilings, cap=cap)
    Store(str(output.parent)).write_json(found, output.name)
    print(f"{len(found['tasks'])} tasks written to {output}")


@curves_app.command("fit")
def fit_curves(
    folder: Annotated[Path, typer.Argument(help="Folder of {task}.json result files.")],
    output: Annotated[Path, typer.Option(help="Where to write the family (calibration.json).")],
    name: Annotated[str, typer.Option(help="The family's name.")],
    ceilings: Annotated[Path | None, typer.Option(help="JSON of human scores per task.")] = None,
    cos_low: Annotated[Path | None, typer.Option(help="CSV of task, cos_low; optional.")] = None,
    cap: Annotated[int, typer.Option(help="The largest budget considered.")] = 5000,
) -> None:
    """A family of your own measured curves, for `predict --family`; with or without CoS-Low."""
    from taskeff.estimate.evidence import with_evidence
    from taskeff.estimate.folders import fit_tasks, read_tasks
    from taskeff.report.sentences import works

    tasks = read_tasks(folder, ceilings, cos_low, cap=cap)
    found = with_evidence(
        fit_tasks(tasks, family=name, cap=cap, fingerprint={}),
        {key: task.curve for key, task in tasks.items()},
        {key: task.ceiling for key, task in tasks.items()},
    )
    found.save(str(output))
    short = [name for name, task in tasks.items() if task.point.status == "short"]
    print(
        f"family {name!r}: {len(tasks)} tasks, {len(found.fitted)} with a CoS-Low, written to "
        f"{output}"
    )
    print(works(found))
    if short:
        print(f"{len(short)} measured too short a way to count: {', '.join(short)}")


@curves_app.command("show")
def show_curves(
    source: Annotated[Path, typer.Argument(help="File written by `curves import`.")],
    as_json: AsJson = False,
) -> None:
    """A table of imported curves: area, zero-shot score, ceiling, labels to 80 and 90 %."""
    from taskeff.curves.published import summarise_import
    from taskeff.estimate.rounding import whole
    from taskeff.storage import Store

    rows = summarise_import(Store(str(source.parent)).read_json(source.name), str(source))
    if as_json:
        show({row.pop("task"): row for row in rows}, True)
        return
    print(f"{'task':<40}{'AUC':>7}{'zero':>7}{'top':>7}{'n(80 %)':>9}{'n(90 %)':>9}")
    for row in rows:
        labels = "".join(
            f"{'never' if row[key] is None else whole(row[key]):>9}"
            for key in ("labels_80", "labels_90")
        )
        name = row["task"][:39]
        print(f"{name:<40}{row['auc']:>7.3f}{row['zero_shot']:>7.3f}{row['ceiling']:>7.3f}{labels}")
