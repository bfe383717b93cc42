"""Verb of the families: which calibrations come along, and what they are worth."""

from __future__ import annotations

from typing import Any

import typer

from taskeff.cli.options import AsJson

app = typer.Typer()


@app.command()
def families(as_json: AsJson = False) -> None:
    """The families that `--family` knows by name: model, tasks, evidence, caveat."""
    import json

    from taskeff.estimate.family_files import bundled_families
    from taskeff.screen import Screen

    found = [_about(name) for name in bundled_families()]
    if as_json:
        print(json.dumps(found, indent=1))
        return
    console = Screen(highlight=False, soft_wrap=True, markup=False)
    for one in found:
        model, tasks = one["model"] or "any model", one["tasks"]
        rests = f"{tasks} tasks with curves" if tasks else "shipped as parameters"
        console.print(f"{one['name']}: {model}; {rests}, up to {one['cap']:,} labels")
        for key in ("evidence", "caveat"):
            if one[key]:
                console.print(f"  {key}: {one[key]}")
    console.print("next: taskeff select --family NAME --model MODEL --task TASK.yaml --out OUT")


def _about(name: str) -> dict[str, Any]:
    from taskeff.estimate.calibration import Calibration

    family = Calibration.load(name)
    worth = family.cos_low
    evidence = family.source
    if evidence is None and worth is not None and worth.r is not None and family.mae is not None:
        evidence = (
            f"measured by this project: r {worth.r:.2f}, left-out error {family.mae:.3f} against "
            f"{family.mean_baseline:.3f} for predicting the mean"
        )
    return {
        "name": name,
        "model": family.fingerprint.get("model"),
        "cap": family.cap,
        "tasks": len(family.fitted),
        "evidence": evidence,
        "caveat": family.caveat,
    }
