"""Any bytes at any boundary: no traceback, no hang, no file opened for writing elsewhere."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from taskeff.cli import main
from taskeff.errors import TaskeffError
from taskeff.tasks.templates import render
from tests.test_any_input import READ, ROWS, as_csv, contents

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
SECONDS = 40.0
"""Of the whole test; examples are drawn anew each time."""
LONGEST = 10.0
"""Seconds that a few hundred bytes may take."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
OFTEN = settings(
    max_examples=100,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[*HealthCheck],
)
written: list[str] = []
_watching = False


def _watch(event: str, arguments: tuple) -> None:
    if _watching and event == "open":
        path, _, flags = arguments
        # A folder is opened so for a nameless file, which is gone when it is closed.
        if isinstance(path, str | bytes) and flags & WRITING and not os.path.isdir(path):
            written.append(os.fsdecode(path))
    elif _watching and event in ("os.rename", "os.link", "os.symlink", "os.mkdir"):
        written.append(str(arguments[1] if event != "os.mkdir" else arguments[0]))


@pytest.fixture(scope="module", autouse=True)
def _hook() -> None:
    sys.addaudithook(_watch)  # for good; it looks away outside


@contextlib.contextmanager
def watched(folder: Path):
    """What is written in the block lies below `folder`."""
    global _watching
    written.clear()
    started, _watching = time.monotonic(), True
    try:
        yield
    finally:
        _watching = False
    outside = [path for path in written if not os.path.abspath(path).startswith(str(folder))]
    assert not [path for path in outside if not path.startswith(("/dev/", "/proc/"))], outside
    assert time.monotonic() - started < LONGEST


PIECES = ["{{", "}}", "{%", "%}", "range(9)", "x", "|", "join", "for i in", "endfor", "*", "9" * 9]
PIECES += [".__class__", "['a']", "set y =", "%", "lipsum", "~", "'a'", "include", "(", ")", "if"]
templates = st.lists(st.sampled_from([*PIECES, " ", "macro f()", "endmacro", "f()"]), max_size=14)
VERBS = [
    lambda path: ["predict", "--family", path, "--cos-low", "0.5"],
    lambda path: ["predict", "--pilots", path],
    lambda path: ["predict", "--family", "generic", "--scored", path],
    lambda path: ["predict", "--sibling", path, "--pilot", "50:0.5"],
    lambda path: ["curves", "show", path],
    lambda path: ["label", str(Path(path).parent)],
]


def said(monkeypatch_argv: list[str]) -> int:
    before, sys.argv = sys.argv, ["taskeff", *monkeypatch_argv]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0


def test_nothing_gets_past_the_boundaries(tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "rows.csv").write_bytes(as_csv(ROWS))
    for read, name, good in READ.values():  # what is imported on first use is compiled
        with contextlib.suppress(TaskeffError):
            (out / name).write_bytes(good)
            read(out / name)

    def check(data):
        kind = data.draw(st.sampled_from([*READ, "template", "verb"]))
        if kind == "template":
            text = "".join(data.draw(templates))
            with watched(out), contextlib.suppress(TaskeffError):
                render(text, {"x": {"a": [1, "b"]}}, field="doc_to_text")
            return
        read, name, good = READ[kind] if kind in READ else READ["selection"]
        content = data.draw(contents(good))
        (out / name).write_bytes(content)
        with watched(out):
            if kind == "verb":
                verb = data.draw(st.sampled_from(VERBS))
                assert said(verb(str(out / name))) in (0, 2)
            else:
                with contextlib.suppress(TaskeffError):
                    read(out / name)

    ends = time.monotonic() + SECONDS
    rounds = 0
    while time.monotonic() < ends:
        seed(random.randrange(2**32))(OFTEN(given(st.data())(check)))()
        rounds += 1
    assert rounds
    assert "Traceback" not in capsys.readouterr().err
