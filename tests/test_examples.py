"""Every public name is explained by an example that runs, and docs/api.md is made of them."""

from __future__ import annotations

import doctest
import runpy
from pathlib import Path

import pytest

import taskeff
from tests.distributed import candidates as made
from tests.helpers import run_values, write_config

DOCS = Path(__file__).parents[1] / "docs"
LONG = {"calibrate"}
"""Names whose example fine-tunes a whole run."""
NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if name in LONG else [])
    for name in taskeff.__all__
    if name != "__version__"
]


@pytest.fixture(scope="module")
def place(tiny_model, tmp_path_factory) -> Path:
    """The files that the examples name."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "model").symlink_to(tiny_model)
    values = run_values(Path("model"), "run")
    short = {**values["training"], "max_steps": 2}
    tasks = {**values["tasks"], "held_out": []}
    write_config(folder, {**values, "training": short, "tasks": tasks})
    made.family(folder / "model", folder)
    labels = made.LABELS["kinds"]
    made.write_lines(folder / "kinds.jsonl", made.word_rows(labels, 1, 60))
    made.write_manifest(folder, [made.entry("kinds", labels)])
    stated = {"n_examples": 8, "pool_cap": 40, "max_new_tokens": 4, "rank": 4}
    out = folder / "labelled"
    rows = taskeff.select(str(folder / "model"), "name_gender", out, stated)["rows"]
    filled = [{**row, "label": row["choices"][i % 2]} for i, row in enumerate(rows)]
    made.write_lines(out / "to_annotate.jsonl", filled)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_the_example_says_what_happens(name, place, monkeypatch):
    monkeypatch.chdir(place)
    shown = getattr(taskeff, name)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    test = doctest.DocTestParser().get_doctest(shown.__doc__, {"taskeff": taskeff}, name, None, 0)
    assert test.examples, f"taskeff.{name} has no example"
    said: list[str] = []
    result = doctest.DocTestRunner(verbose=False, optionflags=flags).run(test, out=said.append)
    assert result.failed == 0, "".join(said)


def test_the_page_is_what_the_docstrings_say():
    made_of = runpy.run_path(str(DOCS / "api.py"))
    text = made_of["page"]()
    assert (DOCS / "api.md").read_text(encoding="utf-8") == text, "python docs/api.py"
    listed = {name for _, names in made_of["ROOMS"] for name in names}
    assert listed == set(taskeff.__all__) - {"__version__"}
