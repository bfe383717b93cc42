"""Per-example gradients -> cosine matrix: the published procedure, two floors and ours, in one run.

    python benchmarks/gradients.py            time: variants interleaved, CPU and wall seconds
    python benchmarks/gradients.py --memory   peak memory: a fresh process per variant

The model is a randomly initialised Llama of 85M non-embedding parameters in float32. `published`
is batch size 1 with peft, all LoRA gradients kept, cosines in a pairwise Python loop. `floor` is
the same tokens in one packed forward and an activation-only backward pass that records nothing.
`matmul` is those two passes' matrix products alone. Both workloads have 32 examples: `mixed` (64
to 256 tokens, answers of 1 to 5), `shared` (a common prefix of 170 tokens, answers of one).
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from taskeff.coslow.gradients import LoRA, gradient_gram
from taskeff.coslow.linears import find_targets
from taskeff.coslow.passes import example_losses
from taskeff.coslow.ragged import lay_out, ragged_attention
from taskeff.tasks.prompts import TokenizedExample

VOCAB = 8192
LORA = LoRA(rank=64, alpha=32, seed=0)
Examples = list[TokenizedExample]


def build(layers: int) -> LlamaForCausalLM:
    """The model every variant runs on."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=layers,
        num_attention_heads=12,
        num_key_value_heads=12,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def workload(name: str, n: int) -> Examples:
    """`mixed` or `shared`, n examples."""
    rng = np.random.default_rng(0)

    def draw(size: int) -> tuple[int, ...]:
        return tuple(rng.integers(1, VOCAB, size).tolist())

    if name == "mixed":
        return [
            TokenizedExample(draw(int(rng.integers(64, 257))), draw(int(rng.integers(1, 6))))
            for _ in range(n)
        ]
    prefix = draw(170)
    return [
        TokenizedExample((*prefix, i + 1, *draw(int(rng.integers(23, 71)))), draw(1))
        for i in range(n)
    ]


def published(model: LlamaForCausalLM, examples: Examples) -> np.ndarray:
    """Batch size 1, peft, every LoRA gradient kept, a Python loop over pairs."""
    from peft import LoraConfig, get_peft_model

    targets = {t.name: t for block in find_targets(model) for t in block}
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    settings = LoraConfig(r=LORA.rank, lora_alpha=LORA.alpha, target_modules=names)
    adapted = get_peft_model(model, settings).eval()
    try:
        for name, module in adapted.named_modules():
            if hasattr(module, "lora_A"):
                matrix = LORA.matrix(targets_of(name, targets))
                module.lora_A["default"].weight.data.copy_(matrix)
        kept = [p for p in adapted.parameters() if p.requires_grad]
        gradients = []
        for example in examples:
            adapted.zero_grad()
            ids = torch.tensor([example.prompt_ids + example.answer_ids])
            labels = ids.clone()
            labels[0, : len(example.prompt_ids)] = -100
            adapted(input_ids=ids, labels=labels, use_cache=False).loss.backward()
            gradients.append(torch.cat([p.grad.flatten() for p in kept]))
        n = len(gradients)
        cosines = np.eye(n)
        for i in range(n):
            for j in range(i + 1, n):
                value = torch.nn.functional.cosine_similarity(gradients[i], gradients[j], dim=0)
                cosines[i, j] = cosines[j, i] = value.item()
        return cosines
    finally:
        adapted.unload()


def targets_of(name: str, targets: dict) -> object:
    """The linear that a peft layer of this name wraps."""
    found = targets[name.removeprefix("base_model.model.")]
    return type(found)(found.name, found.module, True)


def floor(model: LlamaForCausalLM, examples: Examples) -> None:
    """One packed forward and activation-only backward pass over the same tokens."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    hook = model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: output.requires_grad_()
    )
    for chunk in chunks(examples, 2048):
        layout = lay_out(chunk, range(len(chunk)), 0, torch.device("cpu"))
        with ExitStack() as stack:
            stack.enter_context(ragged_attention(model, layout))
            logits = model(
                input_ids=layout.input_ids,
                position_ids=layout.position_ids,
                use_cache=False,
                logits_to_keep=layout.loss_rows,
            ).logits[0]
            example_losses(logits, layout).sum().backward()
    hook.remove()


def chunks(examples: Examples, max_tokens: int) -> list[Examples]:
    """Examples by rising length, at most `max_tokens` tokens together, as ours."""
    found: list[Examples] = [[]]
    used = 0
    for example in sorted(examples, key=lambda e: len(e.prompt_ids) + len(e.answer_ids)):
        size = len(example.prompt_ids) + len(example.answer_ids) - 1
        if found[-1] and used + size > max_tokens:
            found.append([])
            used = 0
        found[-1].append(example)
        used += size
    return found


@torch.no_grad()
def matmul(model: LlamaForCausalLM, examples: Examples) -> None:
    """The matrix products of one forward and one activation-only backward pass."""
    targets = [t for block in find_targets(model) for t in block]
    for chunk in chunks(examples, 2048):
        rows = sum(len(e.prompt_ids) + len(e.answer_ids) - 1 for e in chunk)
        for target in targets:
            out, width = target.weight.shape
            torch.nn.functional.linear(torch.ones(rows, width), target.weight)
            torch.ones(rows, out) @ target.weight


def ours(**settings) -> Callable[[LlamaForCausalLM, Examples], np.ndarray]:
    """`gradient_gram` with these settings."""
    return lambda model, examples: gradient_gram(model, examples, LORA, **settings).cosines


VARIANTS: dict[str, Callable] = {
    "published": published,
    "floor": floor,
    "matmul": matmul,
    "ours": ours(schedule="stored"),
    "ours-bf16-store": ours(schedule="stored-bf16"),
    "ours-plain": ours(schedule="stored", share_prefix=False, prune=False),
    "ours-layer-major": ours(schedule="layer-major", max_tokens=512),
}


def measure(args: argparse.Namespace) -> None:
    """Interleaved rounds of every variant; ratios of minima."""
    model = build(args.layers)
    for name in args.workload:
        examples = workload(name, args.n)
        tokens = sum(len(e.prompt_ids) + len(e.answer_ids) - 1 for e in examples)
        print(f"\n{name}: {args.n} examples, {tokens} tokens, load {os.getloadavg()[0]:.2f}")
        cpu: dict[str, list[float]] = {v: [] for v in args.variants}
        wall: dict[str, list[float]] = {v: [] for v in args.variants}
        cosines: dict[str, np.ndarray] = {}
        for variant in args.variants:  # warm up on two examples
            VARIANTS[variant](model, examples[:2])
        for _ in range(args.rounds):
            for variant in args.variants:
                before = time.process_time(), time.perf_counter()
                found = VARIANTS[variant](model, examples)
                cpu[variant].append(time.process_time() - before[0])
                wall[variant].append(time.perf_counter() - before[1])
                if found is not None:
                    cosines[variant] = found
        print("| variant | CPU s min | median | wall s min | x published | x floor | max dC |")
        print("|---|---|---|---|---|---|---|")
        for variant in args.variants:
            best = min(cpu[variant])
            error = "-"
            if variant in cosines and "published" in cosines:
                error = f"{np.abs(cosines[variant] - cosines['published']).max():.1e}"
            print(
                f"| {variant} | {best:.2f} | {statistics.median(cpu[variant]):.2f} "
                f"| {min(wall[variant]):.2f} | {ratio(cpu, 'published', best)} "
                f"| {inverse(cpu, 'floor', best)} | {error} |"
            )
        print(f"load at the end {os.getloadavg()[0]:.2f}", flush=True)


def ratio(times: dict[str, list[float]], name: str, best: float) -> str:
    """How many times faster than `name`."""
    return f"{min(times[name]) / best:.2f}" if times.get(name) else "-"


def inverse(times: dict[str, list[float]], name: str, best: float) -> str:
    """Share of the time of `name`."""
    return f"{best / min(times[name]):.2f}" if times.get(name) else "-"


def memory(args: argparse.Namespace) -> None:
    """Peak resident memory above that of the loaded model, a fresh process per variant."""
    for name in args.workload:
        extra = {}
        for variant in args.variants:
            command = [sys.executable, __file__, "--peak", variant, "--workload", name]
            command += ["--n", str(args.n), "--layers", str(args.layers)]
            result = subprocess.run(command, check=True, capture_output=True, text=True)
            extra[variant] = float(result.stdout.split()[-1])
        print(f"\n{name}\n| variant | extra peak MB | x published |\n|---|---|---|")
        for variant, value in extra.items():
            print(f"| {variant} | {value:.0f} | {value / extra.get('published', np.nan):.2f} |")


def peak(variant: str, name: str, n: int, layers: int) -> None:
    """Print the extra peak of one variant in this process."""
    model = build(layers)
    examples = workload(name, n)
    VARIANTS[variant](model, examples[:1])
    before = resident()
    VARIANTS[variant](model, examples)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before)


def resident() -> float:
    """Megabytes now resident."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--n", type=int, default=32)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--workload", nargs="+", default=["mixed", "shared"])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        peak(args.peak, args.workload[0], args.n, args.layers)
    elif args.memory:
        memory(args)
    else:
        measure(args)


if __name__ == "__main__":
    main()
