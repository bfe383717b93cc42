"""One cell's training: from base weights every time, the same whatever the packing."""

import pytest
import torch
import torch.distributed as dist

from taskeff.config import EarlyStopping, TrainingConfig
from taskeff.finetune.loop import FineTuner, schedule
from taskeff.models import load_model, load_tokenizer, model_config
from taskeff.tasks.prompts import Prompter
from taskeff.tasks.task import load_spec, load_task

SETTINGS = {"budgets": (8,), "learning_rate": 2e-3, "max_steps": 10, "batch_size": 8}


@pytest.fixture(scope="module")
def rows(tiny_model):
    task = load_task(load_spec("sentiment_words"), 0)
    prompter = Prompter(load_tokenizer(model_config(str(tiny_model))), task.spec.description)
    return [prompter.encode_example(e, end_of_turn=True) for e in task.subset(48, 0)]


def tuner(tiny_model, dtype="float32", **changes):
    torch.set_num_threads(1)
    config = TrainingConfig(**{**SETTINGS, **changes})
    return FineTuner(load_model(model_config(str(tiny_model), dtype), "cpu"), config, seed=0)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_every_cell_starts_from_base_weights(tiny_model, rows, method):
    trainer = tuner(tiny_model, method=method)
    before = trainer.loss(rows)
    first = trainer.train(rows[:16], seed=3)
    after = trainer.loss(rows[:16])
    again = trainer.train(rows[:16], seed=3)
    assert first.losses == again.losses
    assert after < before
    trainer.restore()
    assert trainer.loss(rows) == before


def test_losses_do_not_depend_on_how_a_step_is_split(tiny_model, rows):
    whole = tuner(tiny_model).train(rows[:16], seed=0).losses
    split = tuner(tiny_model, max_tokens_per_pack=64).train(rows[:16], seed=0).losses
    assert whole == pytest.approx(split, rel=1e-3)


def test_early_stopping_keeps_the_best_weights(tiny_model, rows):
    stopping = EarlyStopping(every_steps=2, patience=2)
    # A learning rate that ruins the model: the best weights are early ones.
    trainer = tuner(tiny_model, learning_rate=0.5, max_steps=40, early_stopping=stopping)
    done = trainer.train(rows[:8], rows[8:24], seed=0)
    best = min(done.validation_losses.values())
    assert done.steps < 40
    assert done.validation_losses[done.best_step] == best
    assert trainer.loss(rows[8:24]) == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize(
    ("n", "expected"), [(8, (4, 6)), (32, (8, 12)), (128, (16, 24)), (1000, (16, 40)), (3, (3, 3))]
)
def test_batches_grow_with_the_budget(n, expected):
    config = TrainingConfig(budgets=(8,), epochs=3, max_steps=40, batch_size=16, scale_batch=True)
    assert schedule(config, n) == expected


def test_a_new_cell_has_its_moments_and_snapshots_where_the_last_one_had_them(tiny_model, rows):
    trainer = tuner(tiny_model, early_stopping=EarlyStopping(every_steps=2, patience=9))

    def places():
        moments = [v for s in trainer.strategy.optimizer.state.values() for v in s.values()]
        return [tensor.data_ptr() for tensor in (*moments, *trainer._best)]

    first = trainer.train(rows[:16], rows[16:24], seed=3)
    before = places()
    again = trainer.train(rows[:16], rows[16:24], seed=3)
    assert places() == before
    assert again.losses == first.losses
    assert again.validation_losses == first.validation_losses


def test_the_fused_optimiser_of_a_gpu_trains_as_the_plain_one(tiny_model, rows):
    plain, fused = tuner(tiny_model), tuner(tiny_model)
    strategy = fused.strategy
    strategy.optimizer = strategy._adamw(strategy.trainable().values(), fused=True)
    losses = [trainer.train(rows[:16], seed=3).losses for trainer in (fused, plain, fused)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[2] == losses[0]


@pytest.fixture
def no_group_left():
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.mark.parametrize("strategy", ["single", "fsdp"])
def test_masters_keep_the_steps_that_bfloat16_loses(tiny_model, rows, strategy, no_group_left):
    """Ten steps at the published learning rate, against those of a float32 model."""

    def moved(**settings):
        trainer = tuner(tiny_model, learning_rate=1e-5, strategy=strategy, **settings)
        before = [w.float() for w in trainer.strategy.snapshot()]
        trainer.train(rows[:16], seed=3)
        weights = zip(trainer.strategy.snapshot(), before, strict=True)
        kept = {weight.dtype for _, weight in trainer.strategy.whole_weights()}
        return torch.cat([(w.float() - b).flatten() for w, b in weights]), kept

    exact, _ = moved()
    masters, kept = moved(dtype="bfloat16")
    lost, _ = moved(dtype="bfloat16", masters="none")
    share = {"exact": exact, "masters": masters, "lost": lost}
    share = {name: float((d @ exact) / (exact @ exact)) for name, d in share.items()}
    assert share["masters"] > 0.8
    assert share["lost"] < 0.5
    assert kept == {torch.bfloat16}
