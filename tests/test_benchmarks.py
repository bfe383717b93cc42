"""Every benchmark and job starts, by the command that it names itself."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(
    str(path.relative_to(ROOT))
    for folder in ("benchmarks", "jobs")
    for path in (ROOT / folder).rglob("*.py")
)
COMMANDS = [file for file in FILES if '__name__ == "__main__"' in (ROOT / file).read_text()]


@pytest.fixture
def fresh(monkeypatch):
    """Modules that a test imports from beside a script are gone after it."""
    monkeypatch.chdir(ROOT)
    before = set(sys.modules)
    yield monkeypatch
    beside = {path.stem for path in (ROOT / "benchmarks").iterdir()}
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in beside:
            del sys.modules[name]


@pytest.mark.parametrize("file", COMMANDS)
def test_it_starts_as_its_first_lines_say(file, fresh, capsys):
    module = file.removesuffix(".py").removesuffix("/__main__").replace("/", ".")
    text = (ROOT / file).read_text()
    said = re.search(rf"-m {re.escape(module)}\b|(?:python|per-node 2) {re.escape(file)}", text)
    assert said, f"{file} does not say how it is started"
    fresh.setattr(sys, "argv", [file, "--help"])
    with pytest.raises(SystemExit) as stop:
        if said[0].startswith("-m"):
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            # What the interpreter does for a script.
            fresh.syspath_prepend(str((ROOT / file).parent))
            runpy.run_path(file, run_name="__main__")
    assert not stop.value.code
    assert "usage" in capsys.readouterr().out.lower()


@pytest.mark.parametrize("file", sorted(set(FILES) - set(COMMANDS)))
def test_it_is_imported(file, fresh):
    fresh.syspath_prepend(str(ROOT / "benchmarks"))
    runpy.run_path(file, run_name="imported")


def test_make_bench_names_files_that_are_there():
    recipe = (ROOT / "Makefile").read_text().partition("\nbench:")[2]
    named = re.findall(r"python (\S+\.py)", recipe)
    assert len(named) == 3
    assert all(file in COMMANDS for file in named)
