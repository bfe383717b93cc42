"""Fine-tuning steps: transformers' Trainer against ours on the same batches, interleaved.

    python benchmarks/training.py
    python benchmarks/training.py --bare
    python benchmarks/training.py --bare --shape 1b --dtype bfloat16 --device cuda --steps 20

The first: both train the same randomly initialised Llama in float32 (AdamW, cosine, clipping) on
the same 16 examples a step, so that their losses can be compared. The Trainer's rows are padded:
16 at once, or sorted by length in 4 accumulated passes of 4; its better one counts. Workloads:
`shared` (a common prefix of 170 tokens, suffixes of 48, answers of one), `ragged` (suffixes of
24 to 71), `mixed` (nothing shared, 64 to 256 tokens, answers of 1 to 5).

`--bare`: our trainer against the same packed batches in a plain loop of forward, backward, clip and
AdamW: what restoring weights, order, schedule and books cost.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch
from gradients import SHAPES, build, workload
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from taskeff.config import TrainingConfig
from taskeff.finetune.loop import FineTuner, order_of
from taskeff.lm.packing import answer_logits, pack
from taskeff.tasks.prompts import TokenizedExample

BATCH = 16
VOCAB = SHAPES["small"]["vocab_size"]
RATE = 1e-4
Examples = list[TokenizedExample]


def examples_of(name: str, n: int) -> Examples:
    """n examples of a workload."""
    if name == "mixed":
        return workload("mixed", n, VOCAB)
    if name == "ragged":
        return workload("shared", n, VOCAB)
    rng = np.random.default_rng(0)
    prefix = tuple(rng.integers(1, VOCAB, 170).tolist())
    return [
        TokenizedExample((*prefix, i + 1, *rng.integers(1, VOCAB, 47).tolist()), (i + 1,))
        for i in range(n)
    ]


def collate(rows: Examples) -> dict[str, torch.Tensor]:
    """Right-padded rows; only answers bear a loss."""
    width = max(len(row.prompt_ids) + len(row.answer_ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for k, row in enumerate(rows):
        end, start = len(row.prompt_ids) + len(row.answer_ids), len(row.prompt_ids)
        ids[k, :end] = torch.tensor(row.prompt_ids + row.answer_ids)
        mask[k, :end] = 1
        labels[k, start:end] = ids[k, start:end]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class Sequential(Trainer):
    """Takes the rows in the order given."""

    def _get_train_sampler(self, train_dataset=None):
        return torch.utils.data.SequentialSampler(train_dataset or self.train_dataset)


def train_padded(model: LlamaForCausalLM, batches: list[Examples], passes: int) -> list[float]:
    """transformers' Trainer over `batches`, each sorted by length and cut into `passes`."""
    rows = [
        row
        for batch in batches
        for row in sorted(batch, key=lambda r: len(r.prompt_ids) + len(r.answer_ids))
    ]
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=BATCH // passes,
            gradient_accumulation_steps=passes,
            max_steps=len(batches),
            learning_rate=RATE,
            lr_scheduler_type="cosine",
            max_grad_norm=1.0,
            use_cpu=True,
            disable_tqdm=True,
            report_to=[],
            save_strategy="no",
            logging_steps=1,
            remove_unused_columns=False,
        )
        trainer = Sequential(model, settings, data_collator=collate, train_dataset=rows)
        trainer.log = lambda *arguments, **more: trainer.state.log_history.append(arguments[0])
        trainer.train()
        return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def compare(name: str, layers: int, steps: int, rounds: int) -> None:
    """Rounds of every variant on one workload; one line each."""
    examples = examples_of(name, BATCH * steps)
    model = small(layers)
    config = TrainingConfig(learning_rate=RATE, max_steps=steps, batch_size=BATCH, warmup_ratio=0)
    tuner = FineTuner(model, config, seed=0)
    order = order_of(len(examples), BATCH, 0)
    batches = [[examples[i] for i in next(order)] for _ in range(steps)]
    tokens = 0

    def ours() -> list[float]:
        nonlocal tokens
        done = tuner.train(examples, seed=0)
        tokens = done.tokens
        return done.losses

    variants: dict[str, Callable[[], list[float]]] = {
        "Trainer, 16 rows": lambda: train_padded(model, batches, 1),
        "Trainer, 4 x 4 rows by length": lambda: train_padded(model, batches, 4),
        "ours": ours,
    }
    seconds: dict[str, list[float]] = {variant: [] for variant in variants}
    losses: dict[str, list[float]] = {}
    for _ in range(rounds):
        for variant, run in variants.items():
            tuner.restore()
            model.train()
            started = time.perf_counter()
            losses[variant] = run()
            seconds[variant].append(time.perf_counter() - started)
    best = min(min(found) for variant, found in seconds.items() if variant != "ours")
    for variant, found in seconds.items():
        off = max(abs(a - b) / b for a, b in zip(losses[variant], losses["ours"], strict=True))
        print(
            f"| {name} | {variant} | {BATCH * steps / min(found):.2f} "
            f"| {BATCH * steps / statistics.median(found):.2f} | {best / min(found):.2f} "
            f"| {off:.0e} |",
            flush=True,
        )
    print(f"  ours: {tokens / (BATCH * steps):.0f} tokens an example", flush=True)


def compare_bare(shape: str, layers: int, steps: int, rounds: int, device: str, dtype: str) -> None:
    """Tokens a second of our trainer and of the plain loop on the same packed batches."""
    examples = examples_of("shared", BATCH * steps)
    model = (small(layers) if shape == "85m" else billion()).to(device, getattr(torch, dtype))
    config = TrainingConfig(learning_rate=RATE, max_steps=steps, batch_size=BATCH, warmup_ratio=0)
    tuner = FineTuner(model, config, seed=0)
    order = order_of(len(examples), BATCH, 0)
    packed = [pack([examples[i] for i in next(order)]).to(device) for _ in range(steps)]
    tokens = sum(batch.n_tokens for batch in packed)

    def plain() -> None:
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
        for batch in packed:
            logits = answer_logits(model, batch).float()
            torch.nn.functional.cross_entropy(logits, batch.targets).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()

    seconds: dict[str, list[float]] = {"plain loop": [], "ours": []}
    for _ in range(rounds + 1):
        tuner.restore()
        model.train()
        for name, run in (("plain loop", plain), ("ours", lambda: tuner.train(examples, seed=0))):
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    # The first round warms up.
    plain_best = min(seconds["plain loop"][1:])
    print("| variant | tokens/s best | median | x plain loop |")
    print("|---|---|---|---|")
    for name, (_, *found) in seconds.items():
        print(
            f"| {name} | {tokens / min(found):.0f} | {tokens / statistics.median(found):.0f} "
            f"| {plain_best / min(found):.3f} |",
            flush=True,
        )


def small(layers: int) -> LlamaForCausalLM:
    """The gradients benchmark's small shape in float32, all of it trained."""
    shape = argparse.Namespace(shape="small", layers=layers, dtype="float32", device="cpu")
    return build(shape).requires_grad_(True)


def billion() -> LlamaForCausalLM:
    """About 1.1 billion parameters, randomly initialised."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=2048,
            intermediate_size=8192,
            num_hidden_layers=18,
            num_attention_heads=32,
            num_key_value_heads=8,
            max_position_embeddings=4096,
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--workloads", nargs="+", default=["shared", "ragged", "mixed"])
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("--shape", choices=["85m", "1b"], default="85m")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    if args.bare:
        compare_bare(args.shape, args.layers, args.steps, args.rounds, args.device, args.dtype)
        return
    print(f"{args.layers} layers, {args.steps} steps of {BATCH}, load {os.getloadavg()[0]:.2f}")
    print("| workload | variant | examples/s best | median | x best Trainer | loss off by |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in args.workloads:
        compare(name, args.layers, args.steps, args.rounds)
    print(f"load at the end {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
