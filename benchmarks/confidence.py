"""Confidence of greedy answers: the published procedure against ours, interleaved in one run.

    python benchmarks/confidence.py

`published` generates at batch size 1 and then runs a second forward pass over prompt and answer
for the probabilities. The model is a randomly initialised Llama in float32; prompts share 170 of
about 217 tokens, answers are cut at `--new` tokens.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import numpy as np
import torch
from gradients import build, workload

from taskeff.generate import greedy


@torch.no_grad()
def published(model, prompts, new: int) -> list[tuple[tuple[int, ...], list[float]]]:
    """`generate` at batch size 1, then a forward pass over prompt and answer."""
    found = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        logits = model(out, use_cache=False).logits[0, len(prompt) - 1 : -1]
        probs = logits.float().softmax(-1).max(-1).values
        found.append((tuple(out[0, len(prompt) :].tolist()), probs.tolist()))
    return found


def ours(model, prompts, new: int) -> list[tuple[tuple[int, ...], list[float]]]:
    """One batched pass."""
    generations = greedy(model, prompts, max_new_tokens=new, stop_ids=[])
    return [(one.tokens, list(one.top_probs)) for one in generations]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--new", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--layers", type=int, default=12)
    args = parser.parse_args()
    model = build(args.layers)
    prompts = [example.prompt_ids for example in workload("shared", args.n)]
    print(f"{args.n} prompts, load {os.getloadavg()[0]:.2f}")
    print("| new | variant | CPU s min | median | wall s | x published | same tokens | max dp |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for new in args.new:
        compare(model, prompts, new, args.rounds)
    print(f"load at the end {os.getloadavg()[0]:.2f}")


def compare(model, prompts, new: int, rounds: int) -> None:
    """Rounds of both, interleaved; one line each."""
    variants = {"published": published, "ours": ours}
    cpu: dict[str, list[float]] = {name: [] for name in variants}
    wall: dict[str, list[float]] = {name: [] for name in variants}
    answers = {}
    for variant in variants.values():
        variant(model, prompts[:2], new)
    for _ in range(rounds):
        for name, variant in variants.items():
            before = time.process_time(), time.perf_counter()
            answers[name] = variant(model, prompts, new)
            cpu[name].append(time.process_time() - before[0])
            wall[name].append(time.perf_counter() - before[1])
    pairs = list(zip(answers["published"], answers["ours"], strict=True))
    same = sum(a[0] == b[0] for a, b in pairs)
    error = max(np.abs(np.array(a[1]) - np.array(b[1])).max() for a, b in pairs if a[0] == b[0])
    for name in variants:
        best = min(cpu[name])
        print(
            f"| {new} | {name} | {best:.2f} | {statistics.median(cpu[name]):.2f} "
            f"| {min(wall[name]):.2f} | {min(cpu['published']) / best:.2f} "
            f"| {same} of {len(pairs)} | {error:.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
