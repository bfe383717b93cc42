"""Every field of `training` and `evaluation` is seen to reach what it is for."""

from __future__ import annotations

import copy

import pytest
import torch

from taskeff.config import EvaluationConfig, RunConfig, TrainingConfig
from taskeff.errors import ConfigError
from taskeff.finetune.loop import FineTuner
from taskeff.models import load_model, model_config
from taskeff.run.plan import make_plan
from tests.finetune.small import (
    folders,
    measure_cells,
    measure_interrupted,
    results,
    small_config,
    the_task,
)

BASE = {"max_steps": 4, "batch_size": 4, "learning_rate": 2e-3}
PLAIN = {"budgets": [8], "early_stopping": None, "max_steps": 4}


@pytest.fixture(scope="module")
def loaded(tiny_model):
    torch.set_num_threads(1)
    return load_model(model_config(str(tiny_model)), "cpu")


@pytest.fixture(scope="module")
def rows(tiny_model):
    from taskeff.models import load_tokenizer
    from taskeff.tasks.prompts import Prompter
    from taskeff.tasks.task import load_spec, load_task

    task = load_task(load_spec("sentiment_words"), 0)
    prompter = Prompter(load_tokenizer(model_config(str(tiny_model))), task.spec.description)
    return [prompter.encode_example(e, end_of_turn=True) for e in task.subset(24, 0)]


@pytest.fixture
def trained(loaded, rows):
    """(its trainer, what it says of a short training) under changed settings."""

    def run(**changes):
        tuner = FineTuner(copy.deepcopy(loaded), TrainingConfig(**{**BASE, **changes}), seed=0)
        return tuner, tuner.train(rows[:16], rows[16:], seed=0)

    return run


def calls(loaded, rows, **changes):
    """How often the first block is called in training, and the type of what it returns."""
    tuner = FineTuner(copy.deepcopy(loaded), TrainingConfig(**{**BASE, **changes}), seed=0)
    seen = []
    tuner.model.model.layers[0].self_attn.q_proj.register_forward_hook(
        lambda module, inputs, output: seen.append(output.dtype)
    )
    tuner.train(rows[:16], seed=0)
    return len(seen), set(seen)


def test_budgets_and_seeds(tiny_model, tmp_path):
    plan = make_plan(small_config(tiny_model, tmp_path, budgets=[3, 5], seeds=[1, 2]))
    assert {cell.budget for cell in plan.cells} == {0, 3, 5}
    assert {cell.seed for cell in plan.cells} == {1, 2}


def test_method_and_lora(trained):
    full, adapted = trained()[0], trained(method="lora")[0]
    assert set(full.strategy.trainable()) == {n for n, _ in full.model.named_parameters()}
    assert all("lora_" in name for name in adapted.strategy.trainable())
    other, _ = trained(method="lora", lora={"rank": 3, "alpha": 12})
    assert {p.shape[0] for n, p in other.strategy.trainable().items() if "lora_A" in n} == {3}
    assert {m.scaling["default"] for m in other.model.modules() if hasattr(m, "lora_A")} == {4.0}


def test_rates(trained):
    """A linear rise to the learning rate, then a cosine to zero, with AdamW's decay."""
    settings = {"learning_rate": 0.004, "warmup_ratio": 0.5, "weight_decay": 0.3, "max_steps": 8}
    rates: list[float] = []
    tuner, _ = trained(**settings)
    strategy = tuner.strategy
    strategy.start(8)
    assert strategy.optimizer.param_groups[0]["weight_decay"] == 0.3
    for _ in range(9):
        rates.append(strategy.scheduler.get_last_lr()[0])
        strategy.optimizer.step()
        strategy.scheduler.step()
    assert rates == pytest.approx(
        [0, 0.001, 0.002, 0.003, 0.004, 0.004 * 0.853553, 0.002, 0.004 * 0.146447, 0], rel=1e-5
    )


def test_max_grad_norm(trained, monkeypatch):
    norms = []
    step = torch.optim.AdamW.step

    def look(self, *arguments, **more):
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))
        return step(self, *arguments, **more)

    monkeypatch.setattr(torch.optim.AdamW, "step", look)
    trained(max_grad_norm=0.01)
    assert norms == pytest.approx([0.01] * 4, rel=1e-3)


def test_lengths(trained):
    assert trained()[1].steps == 4
    assert trained(epochs=0.5)[1].steps == 2
    assert trained(max_steps=3)[1].steps == 3
    assert trained(batch_size=2)[1].batch_size == 2
    assert trained(batch_size=8)[1].batch_size == 8
    assert trained(batch_size=8, scale_batch=True)[1].batch_size == 4


def test_passes(loaded, rows):
    assert calls(loaded, rows) == (4, {torch.float32})
    assert calls(loaded, rows, max_tokens_per_pack=64)[0] > 4
    assert calls(loaded, rows, gradient_checkpointing=True)[0] == 8
    assert calls(loaded, rows, mixed_precision="bf16")[1] == {torch.bfloat16}


def test_mixed_precision_keeps_float32_weights(trained):
    tuner, done = trained(mixed_precision="bf16")
    assert {p.dtype for p in tuner.model.parameters()} == {torch.float32}
    plain = trained()[1].losses
    # Eight bits a factor; how their errors add up differs between processors: 2.1 % was seen.
    assert done.losses[0] == pytest.approx(plain[0], rel=0.04)
    assert done.losses != plain


def test_masters(loaded, rows):
    for masters, kept in (("float32", torch.float32), ("none", torch.bfloat16)):
        config = TrainingConfig(**BASE, masters=masters)
        tuner = FineTuner(copy.deepcopy(loaded).bfloat16(), config, seed=0)
        tuner.train(rows[:16], seed=0)
        assert {weight.dtype for weight in tuner.strategy.weights()} == {kept}
        moments = [s["exp_avg_sq"] for s in tuner.strategy.optimizer.state.values()]
        assert {moment.dtype for moment in moments} == {kept}


def test_early_stopping(trained):
    _, done = trained(max_steps=9, early_stopping={"every_steps": 3, "patience": 5})
    assert list(done.validation_losses) == [3, 6, 9]
    _, done = trained(
        max_steps=9, learning_rate=0.5, early_stopping={"every_steps": 1, "patience": 2}
    )
    assert done.steps == done.best_step + 2


def test_strategy(trained):
    _, done = trained(strategy="ddp")
    torch.distributed.destroy_process_group()
    assert done.strategy == "ddp"
    assert done.losses == trained(strategy="single")[1].losses
    assert trained()[1].strategy == "single"


def test_deepspeed_config(trained):
    with pytest.raises(ConfigError, match=r"stage is 7"):
        trained(strategy="deepspeed", deepspeed_config={"zero_optimization": {"stage": 7}})


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"strategy": "deepspeed"}, "give both or neither"),
        ({"deepspeed_config": {}}, "give both or neither"),
        ({"strategy": "deepspeed", "deepspeed_config": {"optimizer": {}}}, "sets optimizer"),
        ({"strategy": "deepspeed", "deepspeed_config": "absent.json"}, "absent.json: not a read"),
        ({"mixed_precision": "bf16", "model": "bfloat16"}, "set model.dtype to float32"),
        ({"strategy": "single", "workers": 2}, "uses one worker"),
        (
            {
                "strategy": "deepspeed",
                "deepspeed_config": {},
                "masters": "none",
                "model": "bfloat16",
            },
            "keeps float32 masters",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(tiny_model, tmp_path, changes, what):
    from taskeff.config_file import parse_config

    values = small_config(tiny_model, tmp_path).model_dump(mode="json")
    values["model"]["dtype"] = changes.pop("model", "float32")
    values["cluster"]["workers_per_job"] = changes.pop("workers", 1)
    values["training"].update(changes)
    with pytest.raises(ConfigError, match=what):
        parse_config(values, "test")


def test_keep_checkpoints_and_checkpoint_minutes(tiny_model, tmp_path):
    from transformers import AutoModelForCausalLM

    config = small_config(
        tiny_model, tmp_path, **PLAIN, keep_checkpoints=True, checkpoint_minutes=1e-9
    )
    measure_interrupted(config)
    assert results(config)[8]["training"]["resumed_at"] == 2
    kept = AutoModelForCausalLM.from_pretrained(folders(config)[8].path("weights"))
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert any(not torch.equal(a, b) for a, b in zip(kept.parameters(), base.parameters()))
    assert not folders(config)[0].exists("weights")


def test_evaluation(tiny_model, tmp_path):
    values = small_config(tiny_model, tmp_path, **PLAIN).model_dump(mode="json")
    values["evaluation"] = {"test_cap": 5, "max_tokens_per_pack": 64}
    config = RunConfig.model_validate(values)
    most, asked = [], []
    from taskeff.finetune import evaluate
    from taskeff.tasks.prompts import Prompter

    greedy, prompt_ids = evaluate.greedy, Prompter.prompt_ids
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            evaluate, "greedy", lambda *a, **k: (most.append(k["max_tokens"]), greedy(*a, **k))[1]
        )
        patch.setattr(
            Prompter, "prompt_ids", lambda self, text: asked.append(text) or prompt_ids(self, text)
        )
        measure_cells(config)
    tested = [example.text for example in the_task().test_subset(5)]
    assert [asked.count(text) for text in tested] == [1] * 5  # for both cells
    assert {result["n_test"] for result in results(config).values()} == {5}
    assert set(most) == {64}


def test_no_field_is_left_out():
    """The fields that the tests above set; a new one needs a test of its own."""
    seen = {
        *("budgets", "seeds", "method", "lora", "learning_rate", "warmup_ratio", "weight_decay"),
        *("max_grad_norm", "epochs", "max_steps", "batch_size", "scale_batch"),
        *("max_tokens_per_pack", "gradient_checkpointing", "mixed_precision", "early_stopping"),
        *("strategy", "deepspeed_config", "keep_checkpoints", "checkpoint_minutes", "masters"),
    }
    assert set(TrainingConfig.model_fields) == seen
    assert set(EvaluationConfig.model_fields) == {"test_cap", "max_tokens_per_pack"}
