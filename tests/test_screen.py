"""Control characters of strangers are shown on the terminal, not sent to it."""

from __future__ import annotations

import contextlib
import io
import json
import sys

import pytest
from rich.live import Live
from rich.table import Table
from rich.text import Text

from taskeff.cli import main
from taskeff.screen import Screen, printable
from tests.coslow.test_sheet import hand_out
from tests.helpers import write_config

CLEAR = "\x1b[2J\x1b]0;owned\x07"
EVIL = f"a{CLEAR}\r\x9b1m\u202eb\x00"


def raw(text: str) -> list[str]:
    return [char for char in text if char in "\x1b\x07\r\x9b\u202e\x00"]


def test_everything_that_steers_is_written_out():
    assert printable(EVIL) == r"a\x1b[2J\x1b]0;owned\x07\r\x9b1m\u202eb\x00"
    assert printable("tab\tline\nÄ 中 👍🏽 é") == "tab\tline\nÄ 中 👍🏽 é"
    assert printable("\udcff") == r"\udcff"


@pytest.mark.parametrize("terminal", [False, True])
def test_tables_lines_and_bars(terminal):
    file = io.StringIO()
    screen = Screen(file=file, force_terminal=terminal, width=200)
    table = Table("name", title=EVIL)
    table.add_row(EVIL)
    screen.print(table, Text(EVIL, style="bold"), EVIL)
    with Live(table, console=screen):
        pass
    said = file.getvalue()
    assert said.count(r"\x1b[2J") >= 4 and CLEAR not in said and "\u202e" not in said
    assert terminal or not raw(said)
    assert terminal == ("\x1b[" in said)


@pytest.fixture
def said(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["taskeff", *map(str, arguments)])
        with contextlib.suppress(SystemExit):
            main()
        found = capsys.readouterr()
        assert not raw(found.out + found.err), found
        return found.out + found.err

    return call


def test_errors(said, tmp_path):
    config = write_config(tmp_path, {"name": EVIL, EVIL: EVIL})
    assert "owned" in said("validate", "-c", config)
    (tmp_path / "t.yaml").write_text(json.dumps({"task": EVIL, EVIL: 1}))
    assert "owned" in said("evaluate", "--model", "m", "--task", tmp_path / "t.yaml")
    (tmp_path / "c.json").write_text(json.dumps({"schema": EVIL}))
    assert "owned" in said("predict", "--family", tmp_path / "c.json", "--cos-low", ".5")


def test_imported_curves(said, tmp_path):
    rows = {str(n): {"accuracy": score} for n, score in ((0, 0.2), (50, 0.5), (5000, 0.9))}
    (tmp_path / "curves").mkdir()
    (tmp_path / "curves" / f"a{CLEAR}.json").write_text(json.dumps(rows))
    output = tmp_path / "areas.json"
    said("curves", "import", tmp_path / "curves", "--output", output)
    assert r"\x1b[2J" in said("curves", "show", output)


def test_labelling(said, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.stdin", io.StringIO("s\nq\n"))
    out = hand_out(tmp_path / "out", texts=(f"a{CLEAR}", "b"), choices=(f"y{CLEAR}", "no"))
    assert said("label", out, "--terminal").count(r"\x1b[2J") >= 3
