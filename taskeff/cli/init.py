"""Verb of the beginning: a configuration to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def init(
    name: Annotated[str | None, typer.Argument(help="A configuration; none lists them.")] = None,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("."),
    from_harness: Annotated[
        Path | None, typer.Option(help="Instead, a task file of lm-evaluation-harness, as ours.")
    ] = None,
) -> None:
    """Write a configuration that comes along, with its task files, to change as you like."""
    from taskeff.starter import about, starters, write_new, write_starter

    if from_harness is not None:
        from taskeff.tasks.harness import as_yaml
        from taskeff.tasks.task import load_spec

        spec = load_spec(from_harness)
        text = as_yaml(spec.model_dump(mode="json", exclude_defaults=True))
        (path,) = write_new({out / f"{spec.task}.yaml": text.encode()})
        print(f"wrote {path}\nnext: taskeff select --model MODEL --task {path} --out FOLDER")
        return
    if name is None:
        for known, file in starters().items():
            print(f"{known:<28}{about(file)}")
        print("\nnext: taskeff init NAME --out FOLDER")
        return
    config, *named = write_starter(name, out)
    print(f"wrote {config}" + (f" and the {len(named)} files it names" if named else ""))
    verb = "rank" if name == "rank" else "validate"
    there = f"cd {out} && " if out != Path(".") else ""
    print(f"next: {there}taskeff {verb} -c {config.relative_to(out)}")
