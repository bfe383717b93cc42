"""`taskeff label`: the page, and the terminal by what is typed."""

import builtins
import io
import json

import pytest

from taskeff.coslow.sheet import FILLED, open_sheet
from tests.coslow.test_sheet import hand_out
from tests.helpers import run_cli


@pytest.fixture
def typed(monkeypatch, capsys, tmp_path):
    """`taskeff label OUT --terminal` with these lines typed."""

    def run(*lines):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return run_cli(monkeypatch, capsys, "label", tmp_path, "--terminal")

    return run


def labels(out):
    return [json.loads(line)["label"] for line in (out / FILLED).read_text("utf-8").splitlines()]


def test_numbers_words_skip_undo_quit_and_going_on(typed, tmp_path):
    hand_out(tmp_path)
    code, out, _ = typed("1", "u", "No", "s", "maybe", "q")
    assert code == 0
    assert labels(tmp_path) == ["no", "", ""]
    assert "'maybe' is none of the labels" in out
    assert f"go on with: taskeff label {tmp_path} --terminal" in out
    code, out, _ = typed("2", "yes", "")
    assert code == 0
    assert "row 1 of 3" not in out
    assert labels(tmp_path) == ["no", "no", "yes"]
    assert f"then: taskeff score --model org/model --out {tmp_path}" in out


def test_the_last_answer_can_be_undone(typed, tmp_path):
    hand_out(tmp_path, texts=["a"])
    assert typed("1", "u", "2", "")[0] == 0
    assert labels(tmp_path) == ["no"]


def test_free_text_and_labels_called_like_commands(typed, tmp_path):
    hand_out(tmp_path, choices=None)
    typed("grün \N{SEEDLING}", "\\q", "")
    assert labels(tmp_path) == ["grün \N{SEEDLING}", "q", ""]


def test_a_text_cannot_steer_the_terminal(typed, tmp_path):
    hand_out(tmp_path, texts=["\x1b[2J[bold]\x07 \x9b1m text"])
    out = typed("q")[1]
    assert "\x1b[2J" not in out and "\x9b" not in out and "\x07" not in out
    assert "[bold]" in out


def test_ctrl_c_keeps_what_is_done(monkeypatch, capsys, tmp_path):
    hand_out(tmp_path)
    answers = iter(["1"])

    def answer(*_):
        try:
            return next(answers)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(builtins, "input", answer)
    code, out, err = run_cli(monkeypatch, capsys, "label", tmp_path, "--terminal")
    assert code == 130
    assert labels(tmp_path) == ["yes", "", ""]
    assert "1 of 3 rows are labelled" in out and "go on with:" in out
    assert "Traceback" not in err


def test_a_file_changed_meanwhile_is_left_alone(monkeypatch, capsys, tmp_path):
    hand_out(tmp_path)

    def answer(*_):
        open_sheet(tmp_path).write(2, "no")
        return "1"

    monkeypatch.setattr(builtins, "input", answer)
    code, _, err = run_cli(monkeypatch, capsys, "label", tmp_path, "--terminal")
    assert code == 2
    assert "has changed since it was read here" in err
    assert labels(tmp_path) == ["", "", "no"]


def test_the_page_is_written_and_says_what_follows(monkeypatch, capsys, tmp_path):
    code, out, _ = run_cli(monkeypatch, capsys, "label", hand_out(tmp_path))
    assert code == 0
    assert f"0 of 3 rows are labelled; open {tmp_path}/label.html" in out
    assert f"taskeff score --model org/model --out {tmp_path}" in out
    assert (tmp_path / "label.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    code, _, err = run_cli(monkeypatch, capsys, "label", tmp_path / "none")
    assert code == 2
    assert "holds no selection.json" in err
