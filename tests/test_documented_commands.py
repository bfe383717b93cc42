"""Every command that README and docs give is one that the command line takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from taskeff.cli import app
from tests.helpers import run_cli

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"```(?:sh|bash|console)\n(.*?)```", re.DOTALL)


def commands() -> list[tuple[str, list[str]]]:
    """(page, words) of every `taskeff ...` in a block of shell."""
    found = []
    for page in PAGES:
        for block in BLOCK.findall(page.read_text(encoding="utf-8")):
            lines = block.replace("\\\n", " ").splitlines()
            typed = [line for line in lines if line.startswith("$ ")] or lines
            for line in typed:
                words = shlex.split(line, comments=True)
                if "taskeff" in words:
                    found.append((page.name, words[words.index("taskeff") + 1 :]))
    return found


@pytest.mark.parametrize(
    "words",
    [pytest.param(words, id=f"{page}: {' '.join(words)[:60]}") for page, words in commands()],
)
def test_it_is_taken(words):
    command, name = typer.main.get_command(app), "taskeff"
    while words and name is not None and hasattr(command, "commands"):
        name, *words = words
        command = command.commands[name]
    with command.make_context(name, words):
        pass


@pytest.mark.parametrize(
    ("command", "said"),
    [
        shown
        for page in PAGES
        for shown in re.findall(
            r"```console\n\$ taskeff ([^\n]+)\n(.*?)```", page.read_text("utf-8"), re.DOTALL
        )
    ],
)
def test_it_says_what_the_page_shows(command, said, monkeypatch, capsys):
    code, out, err = run_cli(monkeypatch, capsys, *shlex.split(command))
    assert (code, err) == (0, "")
    assert out.split() == said.split()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_index_lists_every_page():
    listed = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = [page.name for page in PAGES if page.parent.name == "docs"]
    assert [name for name in pages if f"({name})" not in listed] == ["README.md"]
