"""`taskeff validate --online` and loading by hub id, against a hub on loopback.

The hub is `tests/tasks/hub_server.py`: the real `huggingface_hub`, `datasets` and `transformers`
clients talk to it through HF_ENDPOINT, in processes of their own, since they read that when they
are imported.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from taskeff.config_file import parse_config
from taskeff.errors import ModelError
from taskeff.models import load_model, load_tokenizer, model_config
from taskeff.run.validate import validate
from tests.helpers import run_values, write_config
from tests.tasks.hub import HUB, write_hub
from tests.tasks.hub_server import HIDDEN, Hub, serve

CONFIGS = Path(__file__).parents[2] / "configs" / "tasks"
MODEL = "made-up/tiny"


@pytest.fixture(scope="module")
def hub(tiny_model, tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    write_hub(root / "datasets", names=["sst2", "toxicchat0124", "overruling", "wic", "boolq"])
    gated = root / "datasets" / HUB["toxicchat0124"].id / HIDDEN
    gated.touch()
    scripted = root / "datasets" / "made-up" / "scripted"
    scripted.mkdir(parents=True)
    (scripted / "README.md").write_text("---\n---\n", encoding="utf-8")
    (scripted / "scripted.py").write_text("raise SystemExit('it ran')", encoding="utf-8")
    shutil.copytree(tiny_model, root / "models" / MODEL)
    shutil.copytree(tiny_model, root / "models" / "made-up" / "gated")
    (root / "models" / "made-up" / "gated" / HIDDEN).touch()
    pickled = root / "models" / "made-up" / "pickled"
    shutil.copytree(tiny_model, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with serve(root) as running:
        yield running


def run_python(hub: Hub, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with the hub as its only one."""
    environment = {
        **os.environ,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": hub.endpoint,
    }
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def changed(folder: Path, name: str, **changes) -> str:
    """A published task file with some fields changed."""
    values = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**values, **changes}), encoding="utf-8")
    return str(path)


def test_every_wrong_id_revision_and_column_is_named(hub, tmp_path):
    values = run_values(Path(MODEL), tmp_path / "results")
    values["model"] = {"path": MODEL, "name": "tiny", "dtype": "float32"}
    values["tasks"] = {
        "calibration": [
            str(CONFIGS / "sst2.yaml"),
            str(CONFIGS / "toxicchat0124.yaml"),
            changed(tmp_path, "overruling", dataset_path="LawInformedAI/overuling"),
            changed(tmp_path, "wic", doc_to_text="{{words}}"),
            changed(tmp_path, "boolq", dataset_kwargs={"revision": "v2"}),
            changed(tmp_path, "quail", dataset_path="made-up/scripted", dataset_kwargs={}),
        ]
    }
    config = write_config(tmp_path, values)
    done = run_python(hub, tmp_path, "-m", "taskeff.cli", "validate", "-c", str(config), "--online")
    assert done.returncode == 2, done.stderr
    said = [line for line in done.stderr.splitlines() if "Traceback" in line or line[:2] == "- "]
    assert len(said) == 5, done.stderr
    for needles in (
        ("toxicchat0124.yaml", "lmsys/toxic-chat", "gated", "hf auth login"),
        ("overruling.yaml", "LawInformedAI/overuling", "check the id"),
        ("wic.yaml", "train row 0", "'words' is undefined", "columns are"),
        ("boolq.yaml", "aps/super_glue", "no such revision"),
        ("quail.yaml", "made-up/scripted", "no data set's code is run", "refs/convert/parquet"),
    ):
        assert any(all(needle in line for needle in needles) for line in said), needles
    # What is right is loaded through the same hub: rows, tokenizer and shape of the model.
    assert "task 'sst2'" in done.stdout and "⟦" in done.stdout
    assert "model: " in done.stdout
    assert not any("model.safetensors" in path for path in hub.asked)


MODELS = """
from taskeff.config import ModelConfig
from taskeff.run.online import hub_problems
from taskeff.errors import ModelError
from taskeff.models import load_model, load_tokenizer
for path, revision in {cases!r}:
    config = ModelConfig(path=path, revision=revision, name="m", dtype="float32")
    for load in (load_tokenizer, load_model):
        try:
            load(config, *(["cpu"] if load is load_model else []))
            print(f"{{load.__name__}} {{path}}@{{revision}}: loaded")
        except ModelError as error:
            print(f"{{load.__name__}} {{path}}@{{revision}}: {{str(error)!r}}")
    found = {{key: str(problem) for key, problem in hub_problems(config, []).items()}}
    print(f"asked {{path}}@{{revision}}: {{found}}")
"""


def test_models_by_hub_id(hub, tmp_path):
    cases = [(MODEL, None), ("made-up/gated", None), ("made-up/pickled", None)]
    cases += [("made-up/none", None), (MODEL, "v9")]
    done = run_python(hub, tmp_path, "-c", MODELS.format(cases=cases))
    assert done.returncode == 0, done.stderr
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert said[f"load_tokenizer {MODEL}@None"] == said[f"load_model {MODEL}@None"] == "loaded"
    assert said[f"asked {MODEL}@None"] == "{}"
    for load in ("load_tokenizer", "load_model"):
        assert "hf auth login" in said[f"{load} made-up/gated@None"]
        assert "check the id" in said[f"{load} made-up/none@None"]
        assert "model.revision" in said[f"{load} {MODEL}@v9"]
    assert "only safetensors are read" in said["load_model made-up/pickled@None"]
    assert "is gated" in said["asked made-up/gated@None"]
    assert "no safetensors" in said["asked made-up/pickled@None"]
    assert "check the id" in said["asked made-up/none@None"]
    assert "no such revision" in said[f"asked {MODEL}@v9"]


def test_a_hub_out_of_reach_is_one_line(tmp_path, tiny_model):
    values = run_values(tiny_model, tmp_path / "results")
    values["model"] = {"path": MODEL, "name": "tiny", "dtype": "float32"}
    values["tasks"] = {"calibration": [str(CONFIGS / "sst2.yaml"), str(CONFIGS / "wic.yaml")]}
    found = validate(parse_config(values, "test"), online=True)
    (said,) = [str(p) for p in found.problems if "not reached" in str(p)]
    assert "HF_HUB_OFFLINE is set" in said and "\n" not in said


def test_a_closed_port_is_one_line(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    from taskeff.run.online import hub_problems

    with pytest.raises(ModelError, match=r"not reached \(http://127\.0\.0\.1:9: .*refused"):
        hub_problems(model_config(MODEL), [])


def test_an_id_that_is_not_cached_says_what_to_do(tmp_path):
    for load in (load_tokenizer, load_model):
        with pytest.raises(ModelError, match=r"HF_HUB_OFFLINE and HF_ENDPOINT, or give a local"):
            load(model_config("made-up/none"))
