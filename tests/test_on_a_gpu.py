"""Everything that runs a model, once on the CPU and once on a pretended GPU: the same results, and
the host seldom waits for the device."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import PartialState
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import LlamaConfig, LlamaForCausalLM

from taskeff.config import TrainingConfig
from taskeff.coslow import passes
from taskeff.coslow.confidence import score_confidence
from taskeff.coslow.gradients import gradient_gram
from taskeff.coslow.linears import LoRA
from taskeff.finetune.checkpoints import Checkpoints
from taskeff.finetune.evaluate import evaluate
from taskeff.finetune.loop import FineTuner
from taskeff.lm import decoding, packing
from taskeff.lm.generate import greedy
from taskeff.models import load_model, load_tokenizer, model_config
from taskeff.storage import Store
from taskeff.tasks.prompts import Prompter, TokenizedExample
from taskeff.tasks.task import load_spec, load_task
from tests.pretend_gpu import CUDA, PretendGPU, pretend_gpu

VOCABULARY = 96
PREFIXES = (0, 40)  # tokens in common: padded, and packed behind a shared prefix
Move = Callable[[Any], Any]


class OneGPU:
    """What `PartialState` says of a process alone on a GPU."""

    device = CUDA
    num_processes, process_index, is_main_process = 1, 0, True


@pytest.fixture(autouse=True)
def one_kernel() -> Iterator[None]:
    """Attention's own choice of kernel differs by device, and with it the rounding."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


def model(dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )
    return LlamaForCausalLM(shape).to(dtype).eval()


def examples(n: int, prefix: int) -> list[TokenizedExample]:
    rng = random.Random(prefix)

    def tokens(least: int, most: int) -> tuple[int, ...]:
        return tuple(rng.randrange(4, VOCABULARY) for _ in range(rng.randint(least, most)))

    common = tokens(prefix, prefix)
    return [TokenizedExample(common + tokens(5, 20), tokens(1, 4), str(i)) for i in range(n)]


def both(run: Callable[[Move, Any], Any], within: float = 1e-6) -> PretendGPU:
    """`run(move, workers)` on the CPU and on the pretended GPU; the results must be equal."""
    expected = run(lambda module: module, PartialState(cpu=True))
    with pretend_gpu() as gpu:
        found = run(on_gpu, OneGPU())
    found, expected = (np.asarray(values, float) for values in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=within, atol=within)
    return gpu


def waits_per(run: Callable[[int], Any], few: int = 2, many: int = 5) -> float:
    """How often the host waits for each more of what `run` is told to do so many of."""
    counts = []
    for n in (few, many):
        with pretend_gpu() as gpu:
            run(n)
        counts.append(gpu.waits.total())
    assert counts[0] > 0
    return (counts[1] - counts[0]) / (many - few)


def on_gpu(module: Any) -> Any:
    return torch.nn.Module.to(module, "cuda")


def projected(move: Move, _: Any, **settings: Any) -> np.ndarray:
    prefix, dtype = settings.pop("prefix", 40), settings.pop("dtype", torch.float32)
    rows = examples(6, prefix)
    return gradient_gram(move(model(dtype)), rows, LoRA(4, 8), max_tokens=150, **settings).cosines


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_projected_gradients(prefix, groups, dtype):
    # Attention in bfloat16 rounds its sums otherwise on either device.
    within = 1e-6 if dtype == torch.float32 else 5e-3
    both(lambda *on: projected(*on, prefix=prefix, groups=groups, dtype=dtype), within)


def test_true_gradients():
    both(lambda move, _: gradient_gram(move(model()), examples(6, 40), None).cosines)


def decode(move: Move, _: Any, prefix: int) -> list[float | None]:
    prompts = [example.prompt_ids for example in examples(8, prefix)]
    labels = [(5,), (6, 7), (6, 9)]
    answers = greedy(
        move(model()), prompts, max_new_tokens=6, stop_ids=(3,), choices=labels, max_tokens=300
    )
    return [x for a in answers for x in (*a.tokens, *a.top_probs, a.choice)]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_decoding(prefix):
    both(lambda *on: decode(*on, prefix=prefix))


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_decoded_token_takes_at_most_two_waits(prefix):
    prompts = [example.prompt_ids for example in examples(8, prefix)]
    assert waits_per(lambda n: greedy(on_gpu(model()), prompts, max_new_tokens=n, stop_ids=())) <= 2


@pytest.mark.parametrize("metric", ["mean_top_prob", "ppl"])
def test_confidence(metric):
    prompts = [example.prompt_ids for example in examples(8, 40)]

    def run(move: Move, _: Any) -> list[float | None]:
        shape = {"stop_ids": (3,), "max_new_tokens": 4, "metric": metric}
        return [row.value for row in score_confidence(move(model()), prompts, **shape)]

    both(run)


def test_evaluation(tiny_model: Path):
    task = load_task(load_spec("sentiment_words"), 0)
    config = model_config(str(tiny_model))
    prompter = Prompter(load_tokenizer(config), task.spec.description)
    models = [load_model(config, "cpu") for _ in range(2)]  # here: transformers loads through meta

    def run(move: Move, _: Any) -> list[float]:
        scored = evaluate(move(models.pop()), prompter, task.spec, task.test[:12], max_tokens=512)
        return [scored.score, scored.label_score or -1, *(len(p.text) for p in scored.predictions)]

    both(run)


def train(move: Move, workers: Any, folder: Store | None = None, **settings: Any) -> list[float]:
    prefix, dtype = settings.pop("prefix", 40), settings.pop("dtype", torch.float32)
    config = TrainingConfig(
        budgets=(8,),
        max_steps=4,
        batch_size=6,
        early_stopping={"every_steps": 2, "patience": 2},
        max_tokens_per_pack=128,
        learning_rate=1e-2,
        **settings,
    )
    rows = examples(10, prefix)
    tuner = FineTuner(move(model(dtype)), config, seed=0, workers=workers)
    checkpoints = Checkpoints(folder, 1e-9, workers) if folder else None
    found = []
    for _ in range(2):  # the second from base weights, or from the newest stored state
        done = tuner.train(rows[:8], rows[8:], seed=1, checkpoints=checkpoints)
        found += [*done.losses, *done.validation_losses.values()]
    return found


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_training(prefix, method, checkpointing):
    settings = {"method": method, "gradient_checkpointing": checkpointing}
    both(lambda *on: train(*on, prefix=prefix, **settings))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_training_step_takes_at_most_two_waits(method):
    rows = examples(8, 40)

    def run(steps: int) -> None:
        config = TrainingConfig(budgets=(8,), method=method, max_steps=steps, batch_size=6)
        tuner = FineTuner(on_gpu(model()), config, seed=0, workers=OneGPU())
        assert len(tuner.train(rows, seed=1).losses) == steps

    assert waits_per(run) <= 2


def test_a_cell_goes_on_from_a_stored_state(tmp_path: Path):
    folders = iter(("cpu", "gpu"))
    both(lambda *on: train(*on, folder=Store(str(tmp_path / next(folders)))))


def left_behind(values: Any, device: torch.device) -> torch.Tensor:
    return torch.as_tensor(values)


@pytest.mark.parametrize(
    ("module", "run"),
    [
        (decoding, lambda: decode(on_gpu, OneGPU(), 40)),
        (passes, lambda: projected(on_gpu, None)),
        (packing, lambda: train(on_gpu, OneGPU())),
    ],
    ids=["decoding", "gradients", "training"],
)
def test_a_tensor_left_on_the_host_is_found(module, run, monkeypatch):
    monkeypatch.setattr(module, "on_device", left_behind)
    with pretend_gpu(), pytest.raises(RuntimeError, match=r"same device.* at taskeff/.*\.py:\d+"):
        run()
