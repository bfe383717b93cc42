"""Per-example gradients -> exact Gram matrix.

The gradient is that of rank-R LoRA matrices at initialisation on every linear of the decoder
blocks. B starts at 0, so grad A is 0 and grad B of example i is s * sum_t delta_it (A x_it)^T: one
forward and one activation-only backward pass give it, with frozen weights and no adapter attached
(arXiv 2512.24991). Three schedules give the same matrix at different memory.

Shapes: N examples, T tokens, D hidden, O out features, R LoRA rank, L answer tokens.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from taskeff.coslow.gram import FullGram, Gram, ProjectedGram
from taskeff.coslow.layer_major import backward_by_layer
from taskeff.coslow.linears import LoRA, Target, find_targets, prunable, ragged_linears
from taskeff.coslow.ragged import Ragged, lay_out, ragged_attention
from taskeff.errors import ConfigError, DataError
from taskeff.packing import MIN_SHARED, shared_prefix
from taskeff.tasks.prompts import TokenizedExample

__all__ = ["Gram", "LoRA", "gradient_gram"]

Schedule = Literal["auto", "stored", "stored-bf16", "layer-major"]
MAX_TOKENS = 2048
FP16_LOSS_SCALE = 1024.0  # keeps small output gradients above fp16's underflow; divided out again


def gradient_gram(
    model: PreTrainedModel,
    examples: Sequence[TokenizedExample | Mapping[str, Sequence[int]]],
    projection: LoRA | None = LoRA(),  # noqa: B008 - frozen
    *,
    targets: Sequence[str] | None = None,
    schedule: Schedule = "auto",
    memory: int | None = None,
    max_tokens: int = MAX_TOKENS,
    share_prefix: bool = True,
    prune: bool = True,
) -> Gram:
    """The Gram matrix of the examples' gradients, each of its own mean loss over answer tokens.

    Args:
        examples: `TokenizedExample`, or mappings with the keys `prompt_ids` and `answer_ids`.
        projection: None takes the true weight gradients of the same linears.
        targets: last parts of the linears' names (`q_proj`); None: all of the decoder blocks.
        schedule: `stored` keeps all gradients (fp32 or bf16), `layer-major` those of one block at
            a time and computes the forward pass twice; `auto` takes the first that fits `memory`.
        memory: bytes gradients and activations may take; None: what is free on the device.
        max_tokens: tokens that go through the model at once.
        share_prefix, prune: False computes prefix rows per example, the last block on all rows.

    Returns:
        A Gram of N examples in the order given.

    Raises:
        DataError: no examples, or one that is empty, too long or of another vocabulary.
        ModelError: an architecture whose attention or linears are not of a known kind.
        ConfigError: an unknown schedule.
    """
    given = _check(model, examples)
    blocks = find_targets(model, targets)
    layouts = _micro_batches(model, given, max_tokens, share_prefix)
    if projection is None:
        chosen: Schedule = "layer-major" if len(layouts) > 1 else "stored"
        gram: ProjectedGram | FullGram = FullGram(len(given))
    else:
        chosen = _choose(schedule, model, blocks, projection, layouts, memory)
        store = torch.bfloat16 if chosen == "stored-bf16" else torch.float32
        gram = ProjectedGram(len(given), store)
    scale = FP16_LOSS_SCALE if model.dtype == torch.float16 else 1.0
    losses = np.full(len(given), np.nan)
    with _frozen(model):
        pruned = prunable(model, blocks[-1], _probe(model)) if prune else frozenset()
        if chosen == "layer-major":
            found = backward_by_layer(model, blocks, layouts, pruned, projection, gram, scale)
        else:
            found = _backward_all(model, blocks, layouts, pruned, projection, gram, scale)
        for layout, values in zip(layouts, found, strict=True):
            losses[list(layout.members)] = values.double().cpu().numpy()
    factor = (1.0 if projection is None else projection.scale**2) / scale**2
    return Gram(factor * gram.total.numpy(), losses, tuple(example.id for example in given))


def example_losses(logits: Tensor, layout: Ragged) -> Tensor:
    """(L, V) logits of the answer rows -> (n,) fp32 mean loss of each example."""
    losses = cross_entropy(logits.float(), layout.targets, reduction="none")
    counts = torch.tensor(layout.answers, device=losses.device)
    totals = losses.new_zeros(len(counts)).index_add(0, layout.owner, losses)
    return totals / counts


def _backward_all(
    model: PreTrainedModel,
    blocks: Sequence[Sequence[Target]],
    layouts: Sequence[Ragged],
    pruned: frozenset[str],
    projection: LoRA | None,
    gram: ProjectedGram | FullGram,
    scale: float,
) -> Iterator[Tensor]:
    """Whole forward and backward passes, one micro-batch after the other; yields their losses."""
    flat = [target for block in blocks for target in block]
    drawn = _draw(projection, flat)
    last = attention_of_last_block(model) if pruned else frozenset()
    for layout in layouts:
        with ExitStack() as stack, torch.enable_grad():
            stack.enter_context(ragged_attention(model, layout, last=last))
            stack.enter_context(ragged_linears(flat, layout, pruned, drawn, gram.recorder(layout)))
            logits = model(
                input_ids=layout.input_ids,
                position_ids=layout.position_ids,
                use_cache=False,
                logits_to_keep=layout.loss_rows,
            ).logits[0]
            losses = example_losses(logits, layout)
            (losses.sum() * scale).backward()
        yield losses.detach()
