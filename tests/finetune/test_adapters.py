"""Adapters folded into the weights while a model is scored."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from taskeff.config import TrainingConfig
from taskeff.finetune.adapters import merged, with_adapters
from taskeff.models import load_model, model_config
from tests.finetune.small import folders, measure_cells, results, small_config

IDS = torch.tensor([[5, 9, 11, 4]])


def adapted(tiny_model, dtype="float32"):
    """A model whose adapters do something."""
    torch.manual_seed(0)
    model = with_adapters(
        load_model(model_config(str(tiny_model), dtype), "cpu"), TrainingConfig(method="lora")
    )
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.02)
    return model.eval()


def adapter_passes(model):
    """A list that grows by one whenever an adapter is passed through."""
    passed = []
    for name, module in model.named_modules():
        if name.endswith("lora_A.default"):
            module.register_forward_hook(lambda *_: passed.append(1))
    return passed


@torch.no_grad()
def test_the_answer_is_the_same_and_the_weights_are_as_before_bit_for_bit(tiny_model):
    model = adapted(tiny_model)
    passed = adapter_passes(model)
    before = {name: w.clone() for name, w in model.state_dict().items()}
    apart = model(input_ids=IDS).logits
    assert passed
    passed.clear()
    with pytest.raises(RuntimeError, match="midway"), merged(model):
        folded = model(input_ids=IDS).logits
        assert not passed
        raise RuntimeError("midway")
    torch.testing.assert_close(folded, apart, rtol=1e-4, atol=1e-5)
    assert not torch.equal(folded, load_model(model_config(str(tiny_model)), "cpu")(IDS).logits)
    assert all(torch.equal(w, before[name]) for name, w in model.state_dict().items())
    assert torch.equal(model(input_ids=IDS).logits, apart)


@torch.no_grad()
def test_half_precision_stays_as_it_is(tiny_model):
    model = adapted(tiny_model, "bfloat16")
    apart = model(input_ids=IDS).logits
    passed = adapter_passes(model)
    with merged(model):
        assert torch.equal(model(input_ids=IDS).logits, apart)
    assert passed


def test_a_cell_is_scored_with_them_folded_in(tiny_model, tmp_path, monkeypatch):
    """And as it would be with them apart, the next cell too."""
    seen = {}
    for way in (merged, nullcontext):
        monkeypatch.setattr("taskeff.finetune.evaluate.merged", way)
        config = small_config(tiny_model, tmp_path / way.__name__, method="lora")
        measure_cells(config)
        tables = [folder.read_table("predictions.parquet") for folder in folders(config).values()]
        training = [r["training"] and r["training"]["losses"] for r in results(config).values()]
        seen[way.__name__] = (tables, training)
    assert seen["merged"][1] == seen["nullcontext"][1]
    assert all(a.equals(b) for a, b in zip(*(tables for tables, _ in seen.values()), strict=True))
