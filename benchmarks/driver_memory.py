"""Memory of a driver that plans a calibration, at two sizes of its task, each in its own process.

    python benchmarks/driver_memory.py [--rows 10000 200000]

Prints what stays and what it took at most, in MB of pages that this process alone has (USS); pages
of the rows' own file, which the system may drop at any time, are among them.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path


def write_task(folder: Path, rows: int) -> str:
    """A task file over `rows` made-up rows of some 300 characters."""
    words = [f"word{i}" for i in range(500)]
    rng = random.Random(0)
    with (folder / "rows.jsonl").open("w") as file:
        for number in range(rows):
            text = f"{number} " + " ".join(rng.choices(words, k=45))
            file.write(json.dumps({"text": text, "label": "ab"[number % 2]}) + "\n")
    path = folder / "mine.yaml"
    path.write_text(
        "task: mine\ndataset_path: json\ndataset_kwargs: {data_files: rows.jsonl}\n"
        'doc_to_text: "{{text}}"\ndoc_to_target: "{{label}}"\ndoc_to_choice: [a, b]\n'
    )
    return str(path)


def measure(rows: int) -> dict[str, float]:
    """MB after the imports, after `make_plan` and its hashes, and the most in between."""
    import psutil

    from taskeff.config_file import parse_config
    from taskeff.run.plan import make_plan
    from tests.helpers import run_values
    from tests.tiny_model import cached

    process, most, done = psutil.Process(), 0.0, threading.Event()

    def used() -> float:
        return process.memory_full_info().uss / 1e6

    def watch() -> None:
        nonlocal most
        while not done.wait(0.02):
            most = max(most, used())

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        values = run_values(cached(), folder / "results")
        warm = make_plan(parse_config(values, "warm"))
        values["tasks"] = {"calibration": [write_task(folder, rows)]}
        before = used()
        watcher = threading.Thread(target=watch)
        watcher.start()
        plan = make_plan(parse_config(values, "benchmark"))
        cells = len(plan.cells)
        done.set()
        watcher.join()
        return {"rows": rows, "cells": cells, "warm": len(warm.cells), "before": before,
                "after": used(), "most": most}  # fmt: skip


def main() -> None:
    """Each size in a process of its own, since memory that was used is not always given back."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 200_000])
    parser.add_argument("--here", action="store_true", help="in this process, as JSON")
    given = parser.parse_args()
    if given.here:
        print(json.dumps(measure(given.rows[0])))
        return
    for rows in given.rows:
        command = [sys.executable, __file__, "--here", "--rows", str(rows)]
        found = json.loads(subprocess.check_output(command).splitlines()[-1])
        grown = {key: found[key] - found["before"] for key in ("after", "most")}
        print(
            f"{rows:>9,} rows: {found['before']:.0f} MB before, {grown['after']:+.1f} after the "
            f"plan, {grown['most']:+.1f} at most"
        )


if __name__ == "__main__":
    main()
