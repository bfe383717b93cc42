"""What is planted in a configuration is in nothing that a run writes, prints or raises."""

import io
import logging
import pickle

import pytest
import yaml
from rich.console import Console

from taskeff import errors
from taskeff.config_file import load_config, parse_config
from taskeff.errors import DataError, TaskeffError, redact
from taskeff.run.driver import calibrate
from taskeff.run.inline import InlineExecutor
from taskeff.run.logs import published_log
from taskeff.storage import Store
from tests.helpers import run_values

PLANTED = ("hunter2-password", "query-token", "from-the-environment")
URI = f"https://somebody:{PLANTED[0]}@host/path?sig={PLANTED[1]}&x=1"


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch):
    monkeypatch.setattr(errors, "_hidden", set())
    monkeypatch.setenv("TASKEFF_PLANTED", PLANTED[2])


def shown(text: str) -> list[str]:
    return [secret for secret in (*PLANTED, "somebody") if secret in text]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (URI, "https://***@host/path?***"),
        (f"cannot read '{URI}': no", "cannot read 'https://***@host/path?***': no"),
        ("s3://key:a@b@bucket/x", "s3://***@bucket/x"),
        ("s3://bucket/x.csv, line 3?", "s3://bucket/x.csv, line 3?"),
        ("write a@b.c, is it?", "write a@b.c, is it?"),
    ],
)
def test_one_function_blots_out(text, left):
    assert redact(text) == left


def test_every_error_of_ours_is_blotted_out():
    assert str(DataError(f"no such file: {URI}")) == "no such file: https://***@host/path?***"
    assert not shown(str(TaskeffError(URI)))
    errors.hide(PLANTED[2])
    for error in (DataError(URI), TaskeffError(PLANTED[2]), DataError(f"{URI} {PLANTED[2]}")):
        kept = pickle.dumps(error)
        assert not shown(kept.decode("latin-1")) and str(pickle.loads(kept)) == str(error)


@pytest.mark.slow
def test_nothing_of_a_run_holds_a_secret(tiny_model, tmp_path):
    storage = tmp_path / "a-home"
    values = run_values(tiny_model, storage)
    values["tasks"] = {"calibration": values["tasks"]["calibration"], "held_out": []}
    values["training"] |= {"budgets": [8], "max_steps": 4}
    values["curve"] = {"cap": 8, "kind": "power"}
    values["tracking"] = {"mlflow_uri": URI, "wandb_project": "${oc.env:TASKEFF_PLANTED}"}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    config = load_config(path)
    assert config.tracking.wandb_project == PLANTED[2]
    said = io.StringIO()
    calibrate(config, InlineExecutor, Console(file=said, width=400))
    with pytest.raises(ValueError, match="token"), published_log(Store(str(storage)), "cell-0"):
        logging.getLogger("taskeff.run").info("%s %s", *PLANTED[2:], URI)
        raise ValueError(URI)
    assert not shown(said.getvalue())
    files = [one for one in storage.rglob("*") if one.is_file()]
    assert {"config.yaml", "run.json", "report.html"} <= {one.name for one in files}
    for one in files:
        assert not shown(one.read_bytes().decode("latin-1")), one
    page = next(one for one in files if one.name == "report.html").read_text()
    assert str(tmp_path) not in page and str(tiny_model) not in page


def test_a_wrong_value_from_the_environment_is_not_told():
    values = {"seed": "${oc.env:TASKEFF_PLANTED}", "storage": URI}
    from taskeff.config_file import overridden

    with pytest.raises(TaskeffError) as caught:
        parse_config(overridden(values, [], "x"), "x")
    assert not shown(str(caught.value))
