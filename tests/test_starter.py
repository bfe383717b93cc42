"""`taskeff init`: the configurations that come along, written out to start from."""

from pathlib import Path

import pytest

from taskeff.config_file import load_config
from taskeff.starter import about, starters
from tests.helpers import run_cli

REPOSITORY = Path(__file__).parents[1]
FAMILY = "llama-3.1-8b-instruct"


@pytest.fixture
def init(monkeypatch, capsys):
    return lambda *arguments: run_cli(monkeypatch, capsys, "init", *arguments)


def test_it_lists_what_there_is(init):
    code, out, _ = init()
    assert code == 0
    for name, file in starters().items():
        assert f"{name} " in out and about(file) in out
    assert {p.stem for p in (REPOSITORY / "configs").glob("*.yaml")} == starters().keys()


def test_a_family_is_written_with_the_tasks_it_names(init, tmp_path, monkeypatch):
    code, out, _ = init(FAMILY, "--out", tmp_path / "new")
    assert code == 0 and "the 33 files it names" in out
    written = sorted(p for p in (tmp_path / "new").rglob("*") if p.is_file())
    assert len(written) == 34
    for path in written:
        here = REPOSITORY / path.relative_to(tmp_path / "new")
        assert path.read_bytes() == here.read_bytes()
    monkeypatch.chdir(tmp_path / "new")
    config = load_config(f"configs/{FAMILY}.yaml")
    assert all(Path(task).is_file() for task in (*config.tasks.calibration, *config.tasks.held_out))


def test_a_second_family_shares_the_tasks(init, tmp_path):
    assert init(FAMILY, "--out", tmp_path)[0] == 0
    assert init("qwen2.5-14b-instruct", "--out", tmp_path)[0] == 0
    assert len(list(tmp_path.glob("configs/*.yaml"))) == 2


def test_what_was_changed_is_not_overwritten(init, tmp_path):
    init(FAMILY, "--out", tmp_path)
    mine = tmp_path / "configs/tasks/sst2.yaml"
    mine.write_text("mine")
    code, _, err = init("qwen2.5-14b-instruct", "--out", tmp_path)
    assert code == 2 and f"{mine} would be overwritten" in err
    assert mine.read_text() == "mine"
    assert not (tmp_path / "configs/qwen2.5-14b-instruct.yaml").exists()


def test_a_folder_that_cannot_be_written_is_named(init, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = init("demo", "--out", tmp_path / "file")
    assert code == 2 and "cannot be written" in err and str(tmp_path / "file") in err


def test_an_unknown_name_is_answered_with_the_known(init):
    code, _, err = init("gpt-2")
    assert code == 2 and FAMILY in err
