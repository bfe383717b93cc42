"""Per-example gradients -> cosine matrix: the published procedure, two floors and ours, in one run.

    python benchmarks/gradients.py --workload mixed    time: variants interleaved, CPU and wall
    python benchmarks/gradients.py --workload shared
    python benchmarks/gradients.py --memory            peak memory: a fresh process per variant
    python benchmarks/gradients.py --tiles             wall time on two Ray actors against one
    python benchmarks/gradients.py --device cuda --shape llama-8b --dtype bfloat16 --workload long

The model is a randomly initialised Llama: `small` has 85M parameters outside its embeddings.
`published` is batch size 1 with peft, all LoRA gradients kept, cosines in a pairwise Python loop.
`plain floor` is the same tokens in packed forward and activation-only backward passes that record
nothing, as transformers runs them: a block mask and sdpa. `floor` is the same with this package's
attention, which needs no mask; `matmul` is those two passes' matrix products alone. `max dC` is
the largest difference in cosine from the published gradients of the same run, their products taken
in float64. A workload is 32 examples: `mixed` (64 to 256 tokens, answers of 1 to 5), `shared` (a
common prefix of 170 tokens, answers of one), `long` (prompts of 512 tokens, answers of one, nothing
in common).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from tempfile import TemporaryDirectory

import numpy as np
import torch
from stopwatch import Stopwatch, load, peak_above
from transformers import LlamaConfig, LlamaForCausalLM

from taskeff.config import ScoringConfig
from taskeff.coslow.gradients import LoRA, gradient_gram
from taskeff.coslow.linears import find_targets
from taskeff.coslow.passes import example_losses
from taskeff.lm.packing import pack
from taskeff.lm.ragged import lay_out, ragged_attention
from taskeff.models import model_config
from taskeff.tasks.prompts import TokenizedExample

LORA = LoRA(rank=64, alpha=32, seed=0)
NAMES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PACK = {"cpu": 1024, "cuda": 2048}  # tokens at once, for the floor as for ours
SHAPES = {
    "small": {
        "vocab_size": 8192,
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 12,
        "tie_word_embeddings": True,
    },
    "llama-8b": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
    },
}
Examples = list[TokenizedExample]
Result = tuple[np.ndarray | None, list[torch.Tensor]]  # cosines, and gradients where they are kept


def build(args: argparse.Namespace) -> LlamaForCausalLM:
    """The model every variant runs on, its weights frozen."""
    torch.manual_seed(0)
    shape = SHAPES[args.shape] | ({"num_hidden_layers": args.layers} if args.layers else {})
    torch.set_default_dtype(getattr(torch, args.dtype))
    with torch.device(args.device):
        model = LlamaForCausalLM(LlamaConfig(max_position_embeddings=2048, **shape)).eval()
    torch.set_default_dtype(torch.float32)
    return model.requires_grad_(False)


def workload(name: str, n: int, vocabulary: int) -> Examples:
    """n examples of `mixed`, `shared` or `long`."""
    rng = np.random.default_rng(0)

    def draw(size: int) -> tuple[int, ...]:
        return tuple(rng.integers(1, vocabulary, size).tolist())

    if name == "mixed":
        return [
            TokenizedExample(draw(int(rng.integers(64, 257))), draw(int(rng.integers(1, 6))))
            for _ in range(n)
        ]
    if name == "long":
        return [TokenizedExample(draw(512), draw(1)) for _ in range(n)]
    prefix = draw(170)
    return [
        TokenizedExample((*prefix, i + 1, *draw(int(rng.integers(23, 71)))), draw(1))
        for i in range(n)
    ]


def published(model: LlamaForCausalLM, examples: Examples) -> Result:
    """Batch size 1, peft, every LoRA gradient kept, a Python loop over pairs."""
    gradients = published_gradients(model, examples)
    n = len(gradients)
    cosines = np.eye(n)
    for i in range(n):
        for j in range(i + 1, n):
            value = torch.nn.functional.cosine_similarity(gradients[i], gradients[j], dim=0)
            cosines[i, j] = cosines[j, i] = value.item()
    return cosines, gradients


def published_gradients(model: LlamaForCausalLM, examples: Examples) -> list[torch.Tensor]:
    """Each example's LoRA gradients, flat."""
    from peft import LoraConfig, get_peft_model

    targets = {t.name: t for block in find_targets(model) for t in block}
    settings = LoraConfig(r=LORA.rank, lora_alpha=LORA.alpha, target_modules=NAMES)
    adapted = get_peft_model(model, settings, autocast_adapter_dtype=False).eval()
    try:
        for name, module in adapted.named_modules():
            if hasattr(module, "lora_A"):
                matrix = LORA.matrix(targets[name.removeprefix("base_model.model.")])
                module.lora_A["default"].weight.data.copy_(matrix)
        kept = [p for p in adapted.parameters() if p.requires_grad]
        gradients = []
        for example in examples:
            adapted.zero_grad()
            ids = torch.tensor([example.prompt_ids + example.answer_ids], device=model.device)
            labels = ids.clone()
            labels[0, : len(example.prompt_ids)] = -100
            adapted(input_ids=ids, labels=labels, use_cache=False).loss.backward()
            gradients.append(torch.cat([p.grad.flatten() for p in kept]))
        return gradients
    finally:
        adapted.unload()


def exact(gradients: list[torch.Tensor]) -> np.ndarray:
    """Their cosines, products and sums in float64."""
    parts = zip(*(gradient.split(1 << 18) for gradient in gradients), strict=True)
    wide = (torch.stack(part).double() for part in parts)
    matrix = sum(part @ part.T for part in wide).cpu().numpy()
    norms = np.sqrt(matrix.diagonal())
    return matrix / np.outer(norms, norms)


def floor(model: LlamaForCausalLM, examples: Examples, *, mask: bool = False) -> Result:
    """Packed forward and activation-only backward passes over the same tokens.

    mask: attend through a block mask instead of example by example.
    """
    hook = model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: output.requires_grad_()
    )
    for chunk in chunks(examples, PACK[model.device.type]):
        layout = lay_out(chunk, range(len(chunk)), 0, model.device)
        packed = pack(chunk, prefix_length=0).to(model.device) if mask else None
        with ExitStack() as stack:
            if packed is None:
                stack.enter_context(ragged_attention(model, layout))
            logits = model(
                input_ids=layout.input_ids,
                position_ids=layout.position_ids,
                attention_mask=None if packed is None else packed.mask,
                use_cache=False,
                logits_to_keep=layout.loss_rows,
            ).logits[0]
            example_losses(logits, layout).sum().backward()
    hook.remove()
    return None, []


def chunks(examples: Examples, max_tokens: int) -> list[Examples]:
    """Examples by rising length, at most `max_tokens` tokens together, as ours."""
    found: list[Examples] = [[]]
    used = 0
    for example in sorted(examples, key=tokens_of):
        size = tokens_of(example)
        if found[-1] and used + size > max_tokens:
            found.append([])
            used = 0
        found[-1].append(example)
        used += size
    return found


def tokens_of(example: TokenizedExample) -> int:
    """Tokens that go through the model."""
    return len(example.prompt_ids) + len(example.answer_ids) - 1


@torch.no_grad()
def matmul(model: LlamaForCausalLM, examples: Examples) -> Result:
    """The matrix products of one forward and one activation-only backward pass."""
    targets = [t for block in find_targets(model) for t in block]
    for chunk in chunks(examples, PACK[model.device.type]):
        rows = sum(map(tokens_of, chunk))
        for target in targets:
            out, width = target.weight.shape
            torch.nn.functional.linear(target.weight.new_ones(rows, width), target.weight)
            _ = target.weight.new_ones(rows, out) @ target.weight
    return None, []


def ours(**settings) -> Callable[[LlamaForCausalLM, Examples], Result]:
    """`gradient_gram` with these settings."""
    return lambda model, examples: (gradient_gram(model, examples, LORA, **settings).cosines, [])


VARIANTS: dict[str, Callable[[LlamaForCausalLM, Examples], Result]] = {
    "published": published,
    "plain floor": partial(floor, mask=True),
    "floor": floor,
    "matmul": matmul,
    "ours": ours(groups=1),
    "ours, plain": ours(groups=1, share_prefix=False, prune=False),
    "ours, block by block": ours(groups=sys.maxsize, max_tokens=512),
}
FLOORS = ["plain floor", "floor"]
WEIGHED = ["published", "ours", "ours, block by block"]
TIMED = ["published", "plain floor", "floor", "matmul", "ours", "ours, block by block"]


def measure(args: argparse.Namespace) -> None:
    """Interleaved rounds of every variant; ratios of minima."""
    model = build(args)
    for name in args.workload:
        examples = workload(name, args.n, model.config.vocab_size)
        print(f"\n{name}: {args.n} examples, {sum(map(tokens_of, examples))} tokens; {load()}")
        watches = {variant: Stopwatch(args.device) for variant in args.variants or TIMED}
        cosines: dict[str, np.ndarray] = {}
        for variant in watches:  # warm up on two examples
            VARIANTS[variant](model, examples[:2])
        for _ in range(args.rounds):
            for variant, watch in watches.items():
                with watch:
                    found, gradients = VARIANTS[variant](model, examples)
                if found is not None:
                    cosines[variant] = found
                if gradients and "exact" not in cosines:
                    cosines["exact"] = exact(gradients)
                del gradients
                print(f"{variant} {watch.seconds[-1]:.2f} s", file=sys.stderr, flush=True)
        report(watches, cosines)
        print(load(), flush=True)


def report(watches: dict[str, Stopwatch], cosines: dict[str, np.ndarray]) -> None:
    """One line per variant: seconds, ratios and the largest difference in cosine."""
    clock = next(iter(watches.values())).clock
    print(
        f"| variant | {clock} s min | median | wall s min | median | published / it "
        "| it / plain floor | it / floor | max dC |\n" + 9 * "|---" + "|"
    )
    for variant, watch in watches.items():
        error = "-"
        if variant in cosines and "exact" in cosines:
            error = f"{np.abs(cosines[variant] - cosines['exact']).max():.1e}"
        pairs = [("published", variant), *((variant, name) for name in FLOORS)]
        ratios = [
            f"{watches[above].best / watches[below].best:.2f}"
            if {above, below} <= set(watches)
            else "-"
            for above, below in pairs
        ]
        print(f"| {variant} | {watch.columns()} | {' | '.join(ratios)} | {error} |")


def memory(args: argparse.Namespace) -> None:
    """Peak memory above that of the loaded model, a fresh process per variant."""
    for name in args.workload:
        extra: dict[str, float] = {}
        for variant in args.variants or WEIGHED:
            command = [sys.executable, __file__, "--peak", variant, "--workload", name]
            for option in ("n", "shape", "dtype", "device", "layers"):
                command += [f"--{option}", str(getattr(args, option))]
            result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            extra[variant] = float(result.stdout.split()[-1])
        print(f"\n{name}; {load()}\n| variant | extra peak MB | it / published |\n|---|---|---|")
        for variant, value in extra.items():
            print(f"| {variant} | {value:.0f} | {value / extra.get('published', np.nan):.2f} |")


def peak(args: argparse.Namespace) -> None:
    """Print the extra peak of one variant in this process."""
    model = build(args)
    examples = workload(args.workload[0], args.n, model.config.vocab_size)
    variant = VARIANTS[args.peak]
    variant(model, examples[:1])
    print(peak_above(lambda: variant(model, examples), args.device))


def tiles(args: argparse.Namespace) -> None:
    """The matrix on one actor and on two, the actors started beforehand."""
    from taskeff.distributed.session import ray_session
    from taskeff.distributed.tiles import GramActors

    gpus = float(args.device.startswith("cuda"))
    with TemporaryDirectory() as folder, ray_session(), ExitStack() as stack:
        build(args).save_pretrained(folder)
        config = model_config(folder, args.dtype)
        pools = {}
        for n in (1, 2):
            scoring = ScoringConfig(actors=(n, n), gpus_per_actor=gpus)
            pools[n] = stack.enter_context(GramActors(config, scoring))
        for name in args.workload:
            examples = workload(name, args.n, SHAPES[args.shape]["vocab_size"])
            print(f"\n{name}: {args.n} examples, {sum(map(tokens_of, examples))} tokens; {load()}")
            watches, cosines = {n: Stopwatch("cpu") for n in pools}, {}
            for pool in pools.values():  # start and warm up
                pool.gram(examples[:2], LORA)
            for _ in range(args.rounds):
                for n, pool in pools.items():
                    with watches[n]:
                        cosines[n] = pool.gram(examples, LORA).cosines
            print("| actors | wall s min | median | one / it | max dC |\n" + 5 * "|---" + "|")
            for n, watch in watches.items():
                least, median = min(watch.wall), statistics.median(watch.wall)
                error = np.abs(cosines[n] - cosines[1]).max()
                ratio = min(watches[1].wall) / least
                print(f"| {n} | {least:.2f} | {median:.2f} | {ratio:.2f} | {error:.1e} |")
            print(load(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--n", type=int, default=32)
    parser.add_argument("--shape", default="small", choices=list(SHAPES))
    parser.add_argument("--layers", type=int, default=0, help="0: as many as the shape has")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workload", nargs="+", default=["mixed", "shared"])
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS))
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--tiles", action="store_true")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        peak(args)
    elif args.tiles:
        tiles(args)
    elif args.memory:
        memory(args)
    else:
        measure(args)


if __name__ == "__main__":
    main()
