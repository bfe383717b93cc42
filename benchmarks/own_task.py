"""The README's task of one's own, as it stands there: each command's seconds and last lines.

    python benchmarks/own_task.py [--model .cache/smollm2-135m-instruct] [--out FOLDER]

`words.csv` is 2,000 words of the bundled suite's sentiment lexicon without their labels; where a
person would label, the lexicon does.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"
HEADING = "## A task of your own"
WORDS = 2000


def commands() -> list[str]:
    """The commands of the README's section, one a line, without the model's name."""
    section = README.read_text("utf-8").partition(HEADING)[2]
    block = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[0].replace("\\\n", " ")
    return [line for line in block.splitlines() if line and not line.startswith("MODEL=")]


def write_words(path: Path) -> dict[str, str]:
    """A CSV of words; word -> what the lexicon says of it."""
    from taskeff.tasks.suite.words import vader_sentiment

    rows = vader_sentiment(random.Random(0))
    random.Random(0).shuffle(rows)
    known = {row["word"]: row["label"] for row in rows[:WORDS]}
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["word"], *([word] for word in known)])
    return known


def fill_in(path: Path, known: dict[str, str]) -> None:
    """Label what was handed out."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    filled = [json.dumps({**row, "label": known[row["text"].strip()]}) for row in rows]
    path.write_text("".join(f"{line}\n" for line in filled), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path(".cache/smollm2-135m-instruct"))
    parser.add_argument("--out", type=Path, help="an empty folder; default: a temporary one")
    options = parser.parse_args()
    model = options.model.resolve()
    folder = options.out or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    known = write_words(folder / "words.csv")
    tool = Path(sys.executable).parent
    for command in commands():
        started = time.perf_counter()
        done = subprocess.run(
            ["bash", "-c", f'MODEL="{model}" PATH="{tool}:$PATH"; {command}'],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        print(f"{time.perf_counter() - started:6.1f} s  {command[:60]}")
        print("".join(f"          {line}\n" for line in done.stdout.splitlines()[-6:]), end="")
        if done.returncode:
            sys.exit(done.stderr)
        if command.startswith("taskeff label"):
            fill_in(folder / "mine" / "to_annotate.jsonl", known)


if __name__ == "__main__":
    main()
