"""The Gram matrix against plain autograd at batch size 1."""

import pickle
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
import torch

from taskeff.config import ModelConfig
from taskeff.coslow import gram as gram_module
from taskeff.coslow.gradients import LoRA, Part, Plan, gradient_gram
from taskeff.coslow.gram import Projected, Tiles
from taskeff.coslow.linears import decoder_blocks, find_targets, prunable
from taskeff.coslow.statistic import coslow
from taskeff.errors import DataError, ModelError
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
    "block by block": {"groups": 3},
    "two groups, micro-batches": {"groups": 2, "max_tokens": 150},
    "block by block, plain": {"groups": 9, "share_prefix": False, "prune": False},
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
def test_every_way_equals_autograd(llama, workload, way):
    examples, matrix = workload
    close(gradient_gram(llama, examples, SMALL, **WAYS[way]), matrix)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_architecture_equals_autograd(name):
    """Every grouping of blocks, split and order."""
    model = build(name)
    examples = examples_of(8, 40, seed=1)
    matrix = plain_gram(model, examples, SMALL)
    order = np.random.default_rng(1).permutation(len(examples))
    shuffled = [examples[i] for i in order]
    for groups, max_tokens in product((1, 3), (2048, 200, 1)):
        settings = {"groups": groups, "max_tokens": max_tokens}
        gram = gradient_gram(model, examples, SMALL, **settings)
        close(gram, matrix)
        again = gradient_gram(model, shuffled, SMALL, **settings)
        close(again, matrix[np.ix_(order, order)])
    true = gradient_gram(model, examples, None, groups=2, max_tokens=200)
    close(true, plain_gram(model, examples, None))


@pytest.mark.parametrize("chunk", [1 << 28, 30_000])
@pytest.mark.parametrize("max_tokens", [2048, 150])
def test_true_weight_gradients(llama, workload, max_tokens, chunk, monkeypatch):
    monkeypatch.setattr(gram_module, "CHUNK_BYTES", chunk)
    examples, _ = workload
    gram = gradient_gram(llama, examples, None, max_tokens=max_tokens)
    close(gram, plain_gram(llama, examples, None))


@pytest.mark.parametrize("projection", [SMALL, None], ids=["projected", "true"])
def test_the_matrix_is_symmetric_to_the_last_bit(llama, projection):
    matrix = gradient_gram(llama, examples_of(37, 0), projection, max_tokens=400).matrix
    assert np.array_equal(matrix, matrix.T)


def test_tiles_are_symmetric_whatever_the_order_of_a_sum():
    tiles = Tiles(3)
    tiles.add([2, 0], [2, 0], np.array([[1.0, 2.0], [2.0 + 2**-51, 3.0]]))
    tiles.add([2, 0], [1], np.array([[4.0], [5.0]]))
    assert np.array_equal(tiles.matrix, tiles.matrix.T)
    np.testing.assert_allclose(tiles.matrix, [[3, 5, 2], [5, 0, 4], [2, 4, 1]])


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize(("prefix", "max_tokens"), [(40, 300), (0, 70)], ids=["shared", "mixed"])
@pytest.mark.parametrize("projection", [LoRA(), None], ids=["projected", "true"])
def test_two_parts_of_a_plan_make_the_whole_matrix(llama, projection, prefix, max_tokens, groups):
    """Each part's gradients are those of the whole, bit for bit."""
    plan = Plan.make(llama.config, examples_of(48, prefix), projection, max_tokens=max_tokens)
    assert len(plan.batches) > 5
    everyone = plan.members(range(len(plan.batches)))
    whole = gradients(Part(llama, plan, range(len(plan.batches))), groups)
    parts = [Part(llama, plan, range(first, len(plan.batches), 2)) for first in (1, 0)]
    found = [gradients(part, groups) for part in parts]
    tiles = Tiles(48)
    for name, together in whole.items():
        for part, own in zip(parts, found, strict=True):
            for place, member in enumerate(part.members):
                assert torch.equal(one(own[name], place), one(together, everyone.index(member)))
        for i, j in ((0, 0), (1, 1), (1, 0)):
            products = found[i][name].products(found[j][name])
            tiles.add(parts[i].members, parts[j].members, products)
    single = gradient_gram(llama, plan.examples, projection, max_tokens=max_tokens, groups=groups)
    norms = np.sqrt(np.diag(single.matrix))
    assert (
        np.abs(
            (plan.gram(tiles, single.losses).matrix - single.matrix) / np.outer(norms, norms)
        ).max()
        < 1e-7
    )
    losses = np.where(np.isnan(parts[0].losses), parts[1].losses, parts[0].losses)
    assert np.array_equal(losses, single.losses)


def gradients(part, groups):
    """Every linear's gradients of one part, through a pickle as between actors."""
    found = {}
    for _ in part.sweep(groups, found.__setitem__):
        pass
    return pickle.loads(pickle.dumps(found))


def one(gradients, place):
    """One example's gradient, or the rows it is made of."""
    if isinstance(gradients, Projected):
        return gradients.rows[place]
    rows = slice(*gradients.ends[place : place + 2])
    return torch.cat([gradients.deltas[rows], gradients.inputs[rows]], dim=1)


def test_a_sweep_goes_from_the_last_group_to_the_first(llama):
    plan = Plan.make(llama.config, examples_of(4, 0), SMALL, max_tokens=100)
    found = {}
    for left in Part(llama, plan, [0]).sweep(3, found.__setitem__):
        blocks = {int(name.split(".")[2]) for name in found}
        assert blocks == set(range(left, 3))
    assert left == 0


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
    gradient_gram(llama, examples_of(3, 40), SMALL, groups=2)
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


def test_less_memory_means_more_groups(llama):
    plan = Plan.make(llama.config, examples_of(10, 0), SMALL, max_tokens=30)
    part = Part(llama, plan, range(len(plan.batches)))
    needs = {groups: part.need(groups, contracted=False) for groups in (1, 2, 3)}
    assert sorted(needs, key=needs.__getitem__) == [3, 2, 1]
    assert [part.groups(needs[groups]) for groups in (1, 2, 3)] == [1, 2, 3]
    assert part.groups(1) == 3
    assert part.groups(1 << 40) == 1


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


def test_the_engine_needs_no_ray():
    code = (
        "import sys; sys.modules['ray'] = None;"
        "import taskeff.run.labelling, taskeff.coslow.gradients"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_blocks_that_are_no_plain_chain_are_refused_in_groups():
    model = build()
    model.model.layers[1].register_forward_pre_hook(lambda block, args: (args[0] + 1, *args[1:]))
    with pytest.raises(ModelError, match="does more between its blocks"):
        gradient_gram(model, examples_of(2, 0), SMALL, groups=2)


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


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("max_tokens", [2048, 400])
def test_the_trained_model_equals_autograd(trained, groups, max_tokens):
    model, rows = trained
    gram = gradient_gram(model, rows, LoRA(), groups=groups, max_tokens=max_tokens)
    close(gram, plain_gram(model, rows, LoRA()))


def test_coslow_of_the_trained_model_is_bit_identical(trained):
    model, rows = trained
    first, second = (coslow(gradient_gram(model, rows).cosines) for _ in range(2))
    assert first == second
    assert -1 < first.median < 1
