"""Verbs of the estimate: predict labels needed, import measured curves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from taskeff.cli.options import AsJson, show

app = typer.Typer()
curves_app = typer.Typer(help="Measured curves: import, show.", no_args_is_help=True)
app.add_typer(curves_app, name="curves")


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
        show(found, True)
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
