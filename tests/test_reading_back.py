"""Our artefacts may come from strangers: one line with file and field, nothing is taken over."""

from __future__ import annotations

import json
import shutil
import time

import pytest

from taskeff.config_file import parse_config
from taskeff.coslow.sheet import open_sheet
from taskeff.errors import TaskeffError
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.family_files import bundled_families
from taskeff.estimate.pilots import read_pilots
from taskeff.lease import Lease
from taskeff.report.collect import collect
from taskeff.run.archive import export_results, import_results
from taskeff.run.plan import make_plan
from taskeff.schema import DEEPEST, decoded
from taskeff.storage import Store
from tests.coslow.test_sheet import hand_out
from tests.helpers import run_cli, run_values

DEEP = "@deep@"
"""Stands for what JSON nests a thousand times."""
NAN = "@nan@"


def written(value) -> bytes:
    text = json.dumps(value).replace(f'"{DEEP}"', "[" * 1000 + "]" * 1000)
    return text.replace(f'"{NAN}"', "NaN").encode()


def changed(value, where: str, new):
    """`value` with the field `a.b.0` replaced."""
    value = json.loads(json.dumps(value))
    at, *path = reversed(where.split("."))
    inner = value
    for part in reversed(path):
        inner = inner[int(part) if isinstance(inner, list) else part]
    inner[int(at) if isinstance(inner, list) else at] = new
    return value


def refused(read, field: str, file: str) -> None:
    with pytest.raises(TaskeffError) as caught:
        read()
    said = str(caught.value)
    assert file in said and field in said and "\n" not in said, said


def plan_of(tiny_model, storage):
    return make_plan(parse_config(run_values(tiny_model, storage), "test"))


@pytest.mark.parametrize(
    "text", ["NaN", "[1e999]", "[" * 2000 + "]" * 2000, "[" * (DEEPEST + 2) + "]" * (DEEPEST + 2)]
)
def test_json_of_ours_is_finite_and_shallow(text):
    with pytest.raises(ValueError, match=r"no number|too deeply"):
        decoded(text)
    assert decoded("[" * DEEPEST + "]" * DEEPEST)


CELLS = [
    ("result.score", 99),
    ("result.score", [0.5]),
    ("result.score", True),
    ("result.score", NAN),
    ("result.score", DEEP),
    ("result.n_test", "30"),
    ("result.n_test", 0),
    ("result.task", "another"),
    ("result.budget", 33),
    ("result.hash", "0"),
    ("result.training", {"seconds": -1}),
    ("budget", 8.5),
    ("task", ["a"]),
]
SIGNALS = [
    ("result.cos_low", 2),
    ("result.task", "another"),
    ("result.n_labels", [2]),
    ("selection.low", [1]),
    ("selection", 1),
]


@pytest.mark.parametrize(
    ("kind", "where", "new"),
    [*(("cell", *case) for case in CELLS), *(("coslow", *case) for case in SIGNALS)],
)
def test_an_archive(local_run, tiny_model, tmp_path, kind, where, new):
    """A bad line in the middle: not even the good ones before it are taken over."""
    records = [json.loads(x) for x in export_results(plan_of(tiny_model, local_run)).splitlines()]
    number = max(i for i, r in enumerate(records) if r["kind"] == kind and r.get("budget", 1))
    records[number] = changed(records[number], where, new)
    data = b"\n".join(map(written, records))
    plan = plan_of(tiny_model, tmp_path)
    field = "not JSON" if new in (NAN, DEEP) else where.rsplit(".", 1)[-1]
    refused(lambda: import_results(plan, data, "x.jsonl"), field, f"x.jsonl, line {number + 1}")
    assert not list(tmp_path.rglob("result.json")) and not list(tmp_path.rglob("coslow.json"))


FAMILY = json.loads(bundled_families()["smollm2-135m-instruct"].read_bytes())


@pytest.mark.parametrize(
    ("where", "new"),
    [
        ("cap", 0),
        ("cap", 10**30),
        ("cap", [512]),
        ("seed", "0"),
        ("fit.slope", NAN),
        ("fit", {"kind": "exec", "slope": 1, "intercept": 0}),
        ("curve.kind", "spline"),
        ("curve.shape.concentration", 0),
        ("curve.shape.budgets", 8),
        ("tasks.0.auc", 99),
        ("tasks.0.cos_low", [0.1]),
        ("tasks.0.name", 5),
        ("tasks.0.rise.area", 1),
        ("tasks.0.controls", {"x": "y"}),
        ("fingerprint", DEEP),
        ("caveat", {"a": 1}),
    ],
)
def test_a_calibration(tmp_path, where, new):
    (tmp_path / "calibration.json").write_bytes(written(changed(FAMILY, where, new)))
    field = "not JSON" if new in (NAN, DEEP) else where.split(".")[0]
    refused(lambda: Calibration.load(str(tmp_path)), field, "calibration.json")


@pytest.mark.parametrize(
    ("where", "new"),
    [
        ("rows", []),
        ("rows.0.id", 1),
        ("rows.0.text", ["a"]),
        ("choices", "yes"),
        ("choices", [1]),
        ("handed_out.name", "../../secret.jsonl"),
        ("settings.n_examples", 0),
        ("control", [{"id": "r0"}]),
        ("fingerprint", DEEP),
        ("mean_confidence", NAN),
    ],
)
def test_a_selection(tmp_path, where, new):
    file = hand_out(tmp_path) / "selection.json"
    file.write_bytes(written(changed(json.loads(file.read_bytes()), where, new)))
    field = "not JSON" if new in (NAN, DEEP) else where
    refused(lambda: open_sheet(tmp_path), field, "selection.json")


@pytest.mark.parametrize(
    ("where", "new"),
    [("pilots.0.score", 99), ("pilots.0.labels", 10**40), ("task", 5), ("zero_shot", [1])],
)
def test_pilots(tmp_path, where, new):
    file = tmp_path / "pilots.json"
    good = {"schema": 1, "pilots": [{"labels": 50, "score": 0.5}], "task": "t", "zero_shot": None}
    file.write_bytes(written(changed(good, where, new)))
    refused(lambda: read_pilots(file), where, "pilots.json")


@pytest.mark.parametrize("new", [99, [0.5], "0.5", True, NAN])
def test_a_score(monkeypatch, capsys, tmp_path, new):
    file = tmp_path / "coslow.json"
    file.write_bytes(written({"cos_low": new, "fingerprint": {}}))
    code, _, err = run_cli(
        monkeypatch, capsys, "predict", "--family", "llama-3.1-8b-instruct", "--scored", file
    )
    assert code == 2 and "coslow.json" in err and "Traceback" not in err
    assert ("not JSON" if new == NAN else "cos_low") in err


@pytest.mark.parametrize(
    ("where", "new"),
    [
        ("held_out", "sentiment_words"),
        ("held_out", ["of-nobody"]),
        ("ceiling", 99),
        ("ceiling", {"a": [1]}),
        ("versions", {"torch": 2}),
        ("seconds", NAN),
    ],
)
def test_a_run(local_run, tmp_path, where, new):
    shutil.copytree(local_run, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "tiny" / "run.json"
    file.write_bytes(written(changed(json.loads(file.read_bytes()), where, new)))
    field = "not JSON" if new == NAN else "task" if new == ["of-nobody"] else where
    refused(
        lambda: collect(Store(str(file.parent))),
        field,
        "curves.parquet" if new == ["of-nobody"] else "run.json",
    )


@pytest.mark.parametrize(
    ("where", "new"),
    [("pid", 2**80), ("pid", -1), ("expires", 1e300), ("expires", [1]), ("owner", DEEP)],
)
def test_a_lease_that_no_driver_wrote_holds_nobody_up(tmp_path, where, new):
    held = {"owner": "x", "machine": "m", "pid": 5, "expires": time.time() + 1000}
    (tmp_path / "lease").mkdir()
    (tmp_path / "lease" / "00000001.json").write_bytes(written(changed(held, where, new)))
    lease = Lease(Store(str(tmp_path)), 60)
    lease.acquire()
    assert lease.held()


@pytest.mark.parametrize(
    ("file", "where", "new"),
    [
        ("result.json", "score", 99),
        ("result.json", "task", "another"),
        ("result.json", "training", DEEP),
        ("coslow.json", "cos_low", [1]),
        ("coslow.json", "task", "another"),
    ],
)
def test_results_of_a_run_count_as_missing(
    local_run, tiny_model, tmp_path, caplog, file, where, new
):
    """They are measured again, and nothing of them is trusted."""
    shutil.copytree(local_run, tmp_path, dirs_exist_ok=True)
    plan = plan_of(tiny_model, tmp_path)
    before = len(plan.results()) + len(plan.coslow_results())
    path = next(tmp_path.rglob(file))
    path.write_bytes(written(changed(json.loads(path.read_bytes()), where, new)))
    assert len(plan.results()) + len(plan.coslow_results()) == before - 1
    field = "not JSON" if new == DEEP else where
    assert any(str(path) in m and field in m and "missing" in m for m in caplog.messages)
