"""A user's own task: select, label, score."""

import json

import pytest

from taskeff.config import CosLowConfig
from taskeff.coslow.workflow import score, select
from taskeff.errors import DataError
from taskeff.models import model_config
from taskeff.tasks.task import load_spec, load_task


def test_select_label_score(tiny_model, tmp_path):
    model = model_config(str(tiny_model))
    settings = CosLowConfig(n_examples=8, pool_cap=60, max_new_tokens=4, rank=4)
    records = select(model, "name_gender", tmp_path, settings)
    assert len(records) == 8
    assert json.loads((tmp_path / "selection.json").read_text())["pool"] == 60
    with pytest.raises(DataError, match="8 of 8 rows have no label yet"):
        score(model, tmp_path)
    task = load_task(load_spec("name_gender"), 0)
    answers = {e.text: e.target for e in (*task.train, *task.validation, *task.test)}
    labelled = [{**record, "label": answers[record["text"]]} for record in records]
    path = tmp_path / "labelled.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in labelled), encoding="utf-8")
    found = score(model, tmp_path, path)
    assert -1 <= found["interval"][0] <= found["cos_low"] <= found["interval"][1] <= 1
    assert found == score(model, tmp_path, path)
    path.write_text(path.read_text().replace('"male"', '"swap"').replace('"female"', '"male"'))
    with pytest.raises(DataError, match="swap"):
        score(model, tmp_path, path)
