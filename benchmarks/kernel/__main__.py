"""The kernel's measurements and their tables (docs/kernel.md).

    python -m benchmarks.kernel measure      # what is missing, in the plan's order
    python -m benchmarks.kernel report       # measurements -> the tables of the page

A line of `docs/kernel/measured.jsonl` is a task and a draw of rows. A run that was stopped goes on
with the next; matrices are kept in `results/kernel/`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from taskeff.config_file import load_config
from taskeff.errors import TaskeffError

NEW = (
    "word_language",
    "weekdays",
    "city_country",
    "coloured_objects",
    "phrase_language",
    "digit_pictures",
)
"""Tasks whose kernel nobody had seen when the plan was made, in the plan's order."""
OLD = (
    "adjective_order",
    "boolean_expressions",
    "common_word",
    "name_gender",
    "phrase_french_german",
    "sentiment_words",
    "web_of_lies",
    "phrase_scandinavian",
    "shuffled_objects",
    "syllogisms",
    "part_of_speech",
    "airport_country",
)
MEASURED = Path("docs/kernel/measured.jsonl")
ARCHIVE = Path("docs/replication/cells.jsonl")
MATRICES = Path("results/kernel")
PAGE = Path("docs/kernel.md")


def read(path: Path) -> dict[tuple[str, str], dict]:
    """Measured lines by task and draw."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {(line["task"], line["draw"]): line for line in map(json.loads, lines)}


def main() -> int:
    """Measure or report; 2 on bad input."""
    parser = argparse.ArgumentParser(description="Measure or report the kernel.")
    parser.add_argument("step", choices=("measure", "report"))
    parser.add_argument("-c", "--config", default="configs/smollm2-135m-instruct.yaml")
    options = parser.parse_args()
    try:
        if options.step == "measure":
            _measure(options.config)
            return 0
        from benchmarks.kernel.tables import results
        from benchmarks.replication.tables import fill
        from benchmarks.replication.targets import read_measurements

        fill(PAGE, results(read(MEASURED), read_measurements(ARCHIVE.parent), NEW, OLD))
    except TaskeffError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _measure(config: str) -> None:
    from benchmarks.kernel.measure import measure
    from taskeff.models import load_model, load_tokenizer

    settings = load_config(config).model
    done = read(MEASURED)
    wanted = [(name, draw) for draw in ("random", "low", "more") for name in (*NEW, *OLD)]
    missing = [one for one in wanted if one not in done]
    if not missing:
        return
    model, tokenizer = load_model(settings), load_tokenizer(settings)
    MATRICES.mkdir(parents=True, exist_ok=True)
    for name, draw in missing:
        found = measure(model, tokenizer, ARCHIVE, name, draw)
        matrix = found.pop("matrix")
        np.save(MATRICES / f"{name}-{draw}.npy", matrix.astype(np.float64))
        with MEASURED.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found, sort_keys=True) + "\n")
        print(f"{name} {draw}: {found['kernel']['accuracy']:.3f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
