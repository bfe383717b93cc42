"""The Gram matrix against plain autograd at batch size 1."""

import subprocess
import sys
from itertools import pairwise, product
from types import ModuleType

import numpy as np
import pytest
import torch

from taskeff.config import ModelConfig
from taskeff.coslow.gradients import LoRA, gradient_gram
from taskeff.coslow.gram import _Kept, ghost, ghost_is_cheaper, materialised
from taskeff.coslow.linears import decoder_blocks, find_targets, prunable
from taskeff.coslow.statistic import coslow
from taskeff.errors import ConfigError, DataError, ModelError
from taskeff.lm import ragged
from taskeff.lm.ragged import lay_out
from taskeff.models import load_model, load_tokenizer
from taskeff.tasks.prompts import Prompter, TokenizedExample
from taskeff.tasks.task import load_spec
from tests.coslow.reference import (
    CONFIGS,
    VOCAB,
    build,
    cosines,
    examples_of,
    plain_gram,
)

NAMES = ["Ann", "Bob", "Eve", "Dan", "Ida", "Jim", "Kay", "Leo"]
SMALL = LoRA(rank=8, alpha=8, seed=3)
WAYS = {
    "default": {},
    "plain": {"share_prefix": False, "prune": False},
    "prune only": {"share_prefix": False},
    "share only": {"prune": False},
    "micro-batches": {"max_tokens": 150},
    "one by one": {"max_tokens": 1},
    "layer-major": {"schedule": "layer-major"},
    "layer-major, micro-batches": {"schedule": "layer-major", "max_tokens": 150},
    "layer-major, plain": {"schedule": "layer-major", "share_prefix": False, "prune": False},
}


def close(gram, matrix):
    """Cosines within 1e-6; the matrix itself to float32's precision."""
    np.testing.assert_allclose(gram.cosines, cosines(matrix), atol=1e-6, rtol=0)
    np.testing.assert_allclose(gram.matrix, matrix, atol=5e-6 * matrix.max(), rtol=0)


@pytest.fixture(scope="module")
def llama():
    return build()


@pytest.fixture(scope="module", params=[40, 0], ids=["shared", "mixed"])
def workload(request, llama):
    examples = examples_of(10, request.param)
    return examples, plain_gram(llama, examples, SMALL)


@pytest.mark.parametrize("way", WAYS)
def test_every_schedule_equals_autograd(llama, workload, way):
    examples, matrix = workload
    close(gradient_gram(llama, examples, SMALL, **WAYS[way]), matrix)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_architecture_equals_autograd(name):
    """Every schedule, split and order; a store of 16 bits to 1e-4."""
    model = build(name)
    examples = examples_of(8, 40, seed=1)
    matrix = plain_gram(model, examples, SMALL)
    order = np.random.default_rng(1).permutation(len(examples))
    shuffled = [examples[i] for i in order]
    for schedule, max_tokens in product(("stored", "layer-major"), (2048, 200, 1)):
        settings = {"schedule": schedule, "max_tokens": max_tokens}
        gram = gradient_gram(model, examples, SMALL, **settings)
        close(gram, matrix)
        again = gradient_gram(model, shuffled, SMALL, **settings)
        close(again, matrix[np.ix_(order, order)])
    half = gradient_gram(model, examples, SMALL, schedule="stored-half", max_tokens=200)
    assert 0 < np.abs(half.cosines - cosines(matrix)).max() <= 1e-4
    true = gradient_gram(model, examples, None, max_tokens=200)
    close(true, plain_gram(model, examples, None))


@pytest.mark.parametrize("rank", [1, 8, 64])
@pytest.mark.parametrize("scale", [1e-30, 1, 1e30])
def test_gradients_stored_in_16_bits_stay_close(rank, scale):
    generator = torch.Generator().manual_seed(rank)
    n, out, rows = 6, 24, 5
    deltas = scale * torch.randn(n, rows, out, generator=generator)
    deltas[0] = 0
    inputs = torch.randn(n, rows, rank, generator=generator)
    kept = _Kept(torch.empty(n, out * rank, dtype=torch.float16), torch.ones(n), n)
    for i in range(n):
        kept.put(i, deltas[i].T, inputs[i])
    flat = (deltas.double().transpose(1, 2) @ inputs.double()).flatten(1)
    found, exact = kept.products()[1:, 1:].numpy(), (flat @ flat.T)[1:, 1:].numpy()
    assert np.abs(cosines(found) - cosines(exact)).max() <= 2e-4
    np.testing.assert_allclose(np.diag(found), np.diag(exact), rtol=1e-3)
    assert not kept.products()[0].any()


@pytest.mark.parametrize("max_tokens", [2048, 150])
def test_true_weight_gradients(llama, workload, max_tokens):
    examples, _ = workload
    gram = gradient_gram(llama, examples, None, max_tokens=max_tokens)
    close(gram, plain_gram(llama, examples, None))


def test_ghost_and_materialised_forms_agree_and_the_cheaper_is_chosen():
    generator = torch.Generator().manual_seed(0)

    def pair(rows, out, width):
        sizes = ((rows, out), (rows, width))
        return tuple(torch.randn(*size, generator=generator) for size in sizes)

    pairs = [pair(rows, 12, 20) for rows in (1, 3, 5, 2)]
    torch.testing.assert_close(ghost(pairs), materialised(pairs), rtol=1e-5, atol=1e-4)
    assert ghost_is_cheaper([pair(2, 256, 256)] * 4)
    assert not ghost_is_cheaper([pair(64, 8, 8)] * 4)


def test_order_of_examples_only_permutes(llama, workload):
    examples, _ = workload
    order = np.random.default_rng(0).permutation(len(examples))
    straight = gradient_gram(llama, examples, SMALL, max_tokens=150)
    shuffled = gradient_gram(llama, [examples[i] for i in order], SMALL, max_tokens=150)
    np.testing.assert_allclose(
        shuffled.cosines, straight.cosines[np.ix_(order, order)], atol=1e-6, rtol=0
    )
    assert shuffled.ids == tuple(straight.ids[i] for i in order)
    np.testing.assert_allclose(shuffled.losses, straight.losses[order], rtol=1e-5)


def test_losses_are_the_examples_own_means(llama):
    examples = examples_of(4, 0)
    expected = []
    for example in examples:
        ids = torch.tensor([example.prompt_ids + example.answer_ids])
        with torch.no_grad():
            logits = llama(ids).logits[0, len(example.prompt_ids) - 1 : -1]
        answer = torch.tensor(example.answer_ids)
        expected.append(float(torch.nn.functional.cross_entropy(logits, answer)))
    assert gradient_gram(llama, examples, SMALL).losses == pytest.approx(expected, rel=1e-5)


def test_the_same_run_gives_the_same_bits(llama, workload):
    first = gradient_gram(llama, workload[0], SMALL)
    assert np.array_equal(first.matrix, gradient_gram(llama, workload[0], SMALL).matrix)


def test_another_seed_draws_another_projection(llama, workload):
    one = gradient_gram(llama, workload[0], LoRA(rank=8, alpha=8, seed=3))
    other = gradient_gram(llama, workload[0], LoRA(rank=8, alpha=8, seed=4))
    assert np.abs(one.cosines - other.cosines).max() > 1e-3


def test_mappings_are_examples_too(llama):
    examples = examples_of(3, 0)
    mappings = [
        {"id": e.id, "prompt_ids": list(e.prompt_ids), "answer_ids": list(e.answer_ids)}
        for e in examples
    ]
    one, other = (gradient_gram(llama, given, SMALL) for given in (examples, mappings))
    assert one.ids == other.ids
    assert np.array_equal(one.matrix, other.matrix)


def test_the_model_comes_back_as_it_was(llama):
    llama.train()
    llama.model.norm.weight.requires_grad_(False)
    attention = llama.config._attn_implementation
    gradient_gram(llama, examples_of(3, 40), SMALL, schedule="layer-major")
    assert llama.training
    assert not llama.model.norm.weight.requires_grad
    assert llama.model.embed_tokens.weight.requires_grad
    assert llama.config._attn_implementation == attention
    assert all("forward" not in module.__dict__ for module in llama.modules())
    assert all(parameter.grad is None for parameter in llama.parameters())
    llama.model.norm.weight.requires_grad_(True)
    llama.eval()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama", {"q_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        ("phi3", {"o_proj", "gate_up_proj", "down_proj"}),
        ("neox", {"dense", "dense_h_to_4h", "dense_4h_to_h"}),
        ("gpt2", {"c_proj", "c_fc"}),
    ],
)
def test_what_keys_and_values_do_not_depend_on_is_pruned(name, expected):
    model = build(name)
    layout = lay_out([TokenizedExample((1, 2), (3,))], [0], 0, torch.device("cpu"))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    found = prunable(model, find_targets(model)[-1], layout)
    assert {part.rsplit(".", 1)[-1] for part in found} == expected


def test_targets_can_be_named(llama):
    assert len(find_targets(llama)[0]) == 7
    examples = examples_of(4, 0)
    only_q = gradient_gram(llama, examples, SMALL, targets=["q_proj"])
    rest = ["k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    others = gradient_gram(llama, examples, SMALL, targets=rest)
    everything = gradient_gram(llama, examples, SMALL)
    np.testing.assert_allclose(only_q.matrix + others.matrix, everything.matrix, rtol=1e-4)
    with pytest.raises(ModelError, match="no linear layer is called w_q; this model has down_proj"):
        gradient_gram(llama, examples, SMALL, targets=["w_q"])


def test_parity_with_peft(llama):
    peft = pytest.importorskip("peft")
    examples = examples_of(4, 0)
    names = [t.name for block in find_targets(llama) for t in block]
    settings = peft.LoraConfig(r=8, lora_alpha=8, target_modules=names, lora_dropout=0.0)
    adapted = peft.get_peft_model(build(), settings).eval()
    targets = {t.name: t for block in find_targets(llama) for t in block}
    layers = {
        name.removeprefix("base_model.model."): module
        for name, module in adapted.named_modules()
        if hasattr(module, "lora_A")
    }
    assert set(layers) == set(targets)
    for name, layer in layers.items():
        layer.lora_A["default"].weight.data.copy_(SMALL.matrix(targets[name]))
    rows = []
    for example in examples:
        adapted.zero_grad()
        ids = torch.tensor([example.prompt_ids + example.answer_ids])
        logits = adapted(ids).logits[0, len(example.prompt_ids) - 1 : -1]
        answer = torch.tensor(example.answer_ids)
        torch.nn.functional.cross_entropy(logits, answer).backward()
        gradients = [layers[name].lora_B["default"].weight.grad for name in names]
        assert all(not layers[n].lora_A["default"].weight.grad.any() for n in names)
        rows.append(torch.cat([g.flatten().double() for g in gradients]).numpy())
    close(gradient_gram(llama, examples, SMALL), np.stack(rows) @ np.stack(rows).T)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_and_finite(dtype):
    model, half = build(), build(dtype=dtype)
    examples = examples_of(8, 40)
    exact = gradient_gram(model, examples, LoRA())
    gram = gradient_gram(half, examples, LoRA())
    assert np.abs(gram.cosines - exact.cosines).max() < (0.1 if dtype == torch.bfloat16 else 0.02)
    np.testing.assert_allclose(np.diag(gram.matrix), np.diag(exact.matrix), rtol=0.3)


def test_auto_takes_less_memory_where_there_is_less(llama, monkeypatch):
    from taskeff.coslow import gradients

    taken = []
    choose = gradients._choose
    monkeypatch.setattr(gradients, "_choose", lambda *a: taken.append(choose(*a)) or taken[-1])
    examples = examples_of(10, 0)
    for memory in (1 << 40, 500_000, 1):
        gradient_gram(llama, examples, SMALL, memory=memory, max_tokens=30)
    assert taken == ["stored", "stored-half", "layer-major"]


BAD = {
    "no examples": ([], "no examples"),
    "empty prompt": ([TokenizedExample((), (1,), "a")], "example 'a': the prompt has no tokens"),
    "empty label": ([TokenizedExample((1,), (), "b")], "example 'b': the label has no tokens"),
    "vocabulary": (
        [TokenizedExample((1, VOCAB), (1,), "c")],
        "example 'c': token 97 is outside .* tokenise with the model's own tokenizer",
    ),
    "window": ([TokenizedExample((1,) * 300, (1,), "d")], "example 'd': 301 tokens exceed"),
    "missing field": ([{"prompt_ids": [1]}], "example 0 has no 'answer_ids'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_examples_are_named(llama, case):
    examples, message = BAD[case]
    with pytest.raises(DataError, match=message):
        gradient_gram(llama, examples, SMALL)


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2"])
def test_the_flash_call_equals_sdpa(name, monkeypatch):
    """flash-attn's documented semantics stand in for its kernel, which needs a GPU."""

    def varlen(q, k, v, **how):
        out = []
        ends_q, ends_k = how["cu_seqlens_q"].tolist(), how["cu_seqlens_k"].tolist()
        for (a, b), (c, d) in zip(pairwise(ends_q), pairwise(ends_k), strict=True):
            keys, values = (
                x[c:d].repeat_interleave(q.shape[1] // k.shape[1], dim=1).transpose(0, 1)
                for x in (k, v)
            )
            scores = q[a:b].transpose(0, 1) @ keys.transpose(1, 2) * how["softmax_scale"]
            if how["softcap"]:
                scores = how["softcap"] * torch.tanh(scores / how["softcap"])
            at = torch.arange(d - c)[None] - torch.arange(b - a)[:, None] - (d - c) + (b - a)
            left = how["window_size"][0]
            hidden = (at > 0) | ((at < -left) if left >= 0 else False)
            weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
            out.append((weights @ values).transpose(0, 1))
        return torch.cat(out)

    module = ModuleType("flash_attn")
    module.flash_attn_varlen_func = varlen
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    monkeypatch.setattr(ragged, "flash_is_missing", lambda model: None)
    model, examples = build(name), examples_of(6, 40)
    for schedule in ("stored", "layer-major"):
        settings = {"schedule": schedule, "max_tokens": 150}
        sdpa = gradient_gram(model, examples, SMALL, **settings)
        flash = gradient_gram(model, examples, SMALL, attention="flash", **settings)
        np.testing.assert_allclose(flash.cosines, sdpa.cosines, atol=1e-6, rtol=0)


def test_flash_attention_is_refused_where_it_cannot_run(llama):
    with pytest.raises(ModelError, match=r"flash-attn is not installed|not torch\.float32 on cpu"):
        gradient_gram(llama, examples_of(2, 0), SMALL, attention="flash")
    with pytest.raises(ConfigError, match="use sdpa or flash"):
        gradient_gram(llama, examples_of(2, 0), SMALL, attention="eager")


def test_the_engine_needs_no_ray():
    code = (
        "import sys; sys.modules['ray'] = None;"
        "import taskeff.run.labelling, taskeff.coslow.gradients"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_schedule_is_refused(llama):
    with pytest.raises(ConfigError, match="use auto, stored"):
        gradient_gram(llama, examples_of(2, 0), SMALL, schedule="fast")


def test_a_model_without_blocks_is_refused():
    with pytest.raises(ModelError, match="no list of decoder blocks"):
        decoder_blocks(torch.nn.Sequential(torch.nn.Linear(2, 2)))


def test_an_attention_of_its_own_is_refused(llama, monkeypatch):
    monkeypatch.setattr(type(llama), "_supports_attention_backend", False)
    with pytest.raises(ModelError, match="an attention of its own"):
        gradient_gram(llama, examples_of(2, 0), SMALL)


@pytest.fixture(scope="module")
def trained(tiny_model):
    """The tests' trained model, and the labelled rows of a bundled task as it sees them."""
    config = ModelConfig(path=str(tiny_model), name="tiny", dtype="float32", attn="sdpa")
    spec = load_spec("name_gender")
    prompter = Prompter(load_tokenizer(config), spec.description)
    rows = [
        prompter.encode(f"Name: {name}", label, end_of_turn=False, example_id=name)
        for name, label in zip(NAMES, ["female", "male"] * 4, strict=True)
    ]
    return load_model(config, "cpu"), rows


@pytest.mark.parametrize("schedule", ["stored", "layer-major"])
@pytest.mark.parametrize("max_tokens", [2048, 400])
def test_the_trained_model_equals_autograd(trained, schedule, max_tokens):
    model, rows = trained
    gram = gradient_gram(model, rows, LoRA(), schedule=schedule, max_tokens=max_tokens)
    close(gram, plain_gram(model, rows, LoRA()))


def test_coslow_of_the_trained_model_is_bit_identical(trained):
    model, rows = trained
    first, second = (coslow(gradient_gram(model, rows).cosines) for _ in range(2))
    assert first == second
    assert -1 < first.median < 1
