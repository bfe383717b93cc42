"""Confidence of greedy answers: the published procedure against ours, interleaved in one run.

    python benchmarks/confidence.py
    python benchmarks/confidence.py --device cuda --shape llama-8b --dtype bfloat16

`published` generates at batch size 1 and then runs a second forward pass over prompt and answer
for the probabilities. The model is that of gradients.py; prompts share 170 of about 217 tokens;
answers are cut at `--new` tokens.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from gradients import SHAPES, build, workload
from stopwatch import Stopwatch, load

from taskeff.lm.generate import greedy

Answers = list[tuple[tuple[int, ...], list[float]]]


@torch.no_grad()
def published(model, prompts, new: int) -> Answers:
    """`generate` at batch size 1, then a forward pass over prompt and answer."""
    found = []
    for prompt in prompts:
        ids = torch.tensor([prompt], device=model.device)
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


def ours(model, prompts, new: int) -> Answers:
    """Batches behind a shared prefix, probabilities from generation itself."""
    generations = greedy(model, prompts, max_new_tokens=new, stop_ids=[])
    return [(one.tokens, list(one.top_probs)) for one in generations]


VARIANTS = {"published": published, "ours": ours}


def compare(model, prompts, new: int, args: argparse.Namespace) -> None:
    """Rounds of both, interleaved; one line each."""
    watches = {name: Stopwatch(args.device) for name in VARIANTS}
    answers: dict[str, Answers] = {}
    for variant in VARIANTS.values():
        variant(model, prompts[:2], new)
    for _ in range(args.rounds):
        for name, variant in VARIANTS.items():
            with watches[name]:
                answers[name] = variant(model, prompts, new)
    pairs = list(zip(answers["published"], answers["ours"], strict=True))
    same = [(a, b) for a, b in pairs if a[0] == b[0]]
    error = max((np.abs(np.array(a[1]) - np.array(b[1])).max() for a, b in same), default=np.nan)
    for name, watch in watches.items():
        faster = watches["published"].best / watch.best
        agreement = f"{len(same)} of {len(pairs)} | {error:.1e}" if name == "ours" else "- | -"
        print(f"| {new} | {name} | {watch.columns()} | {faster:.2f} | {agreement} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--new", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--shape", default="small", choices=list(SHAPES))
    parser.add_argument("--layers", type=int, default=0, help="0: as many as the shape has")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    model = build(args)
    prompts = [e.prompt_ids for e in workload("shared", args.n, model.config.vocab_size)]
    clock = Stopwatch(args.device).clock
    print(f"{args.n} prompts; {load()}")
    print(f"| new tokens | variant | {clock} s min | median | wall s min | median ", end="")
    print("| published / it | same tokens | max dp |\n|---|---|---|---|---|---|---|---|---|")
    for new in args.new:
        compare(model, prompts, new, args)
    print(load())


if __name__ == "__main__":
    main()
