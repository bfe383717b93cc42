"""Several families in one command: checked before, measured one by one, compared after."""

import shutil

import pytest

from taskeff.errors import TaskeffError
from taskeff.run import families
from tests.helpers import run_cli, run_values, write_config


@pytest.fixture
def configs(local_run, tiny_model, tmp_path):
    """Two runs in one storage that are measured already."""
    found = []
    for name in ("one", "two"):
        shutil.copytree(local_run / "tiny", tmp_path / "results" / name)
        (tmp_path / name).mkdir()
        values = run_values(tiny_model, tmp_path / "results", name=name)
        found.append(write_config(tmp_path / name, values))
    return found


def run(monkeypatch, capsys, configs, *more):
    options = [option for config in configs for option in ("-c", config)]
    return run_cli(monkeypatch, capsys, "calibrate", *options, "--local", *more)


def test_they_end_in_a_page_that_compares_them(configs, tmp_path, monkeypatch, capsys):
    code, out, err = run(monkeypatch, capsys, configs)
    assert code == 0, err
    assert "family 1 of 2: one" in out
    assert "family 2 of 2: two" in out
    page = (tmp_path / "results/families.html").read_text("utf-8")
    assert "<td>one</td>" in page
    assert "<td>two</td>" in page
    assert (tmp_path / "results/two/report.html").exists()


def test_one_that_fails_leaves_the_others_alone(configs, tmp_path, monkeypatch, capsys):
    whole = families.measure_family

    def fails(plan, *arguments):
        if plan.config.name == "one":
            raise TaskeffError("its bucket is gone")
        return whole(plan, *arguments)

    monkeypatch.setattr(families, "measure_family", fails)
    code, _, err = run(monkeypatch, capsys, configs)
    assert code == 2
    assert "one: its bucket is gone" in err
    assert "<td>two</td>" in (tmp_path / "results/families.html").read_text("utf-8")


def test_all_are_checked_before_the_first(configs, tiny_model, tmp_path, monkeypatch, capsys):
    (tmp_path / "three").mkdir()
    values = run_values(
        tiny_model, tmp_path / "results", name="three", tasks={"calibration": ["x"]}
    )
    three = write_config(tmp_path / "three", values)
    monkeypatch.setattr(families, "measure_family", lambda *_: pytest.fail("measured"))
    code, _, err = run(monkeypatch, capsys, [*configs, three])
    assert code == 2
    assert "three: " in err
    code, _, err = run(monkeypatch, capsys, [configs[0], configs[0]])
    assert (code, "'one' is that of two runs" in err) == (2, True)
    code, _, err = run(monkeypatch, capsys, configs, "--budgets", "8")
    assert (code, "go with one configuration" in err) == (2, True)
