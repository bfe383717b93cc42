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
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from transformers import PreTrainedModel

from taskeff.coslow.gram import FullGram, Gram, ProjectedGram
from taskeff.coslow.linears import LoRA, Target, find_targets, prunable
from taskeff.coslow.passes import Work, backward_by_layer, backward_whole
from taskeff.errors import ConfigError, DataError
from taskeff.lm.packing import MIN_SHARED, shared_prefix
from taskeff.lm.ragged import Ragged, lay_out
from taskeff.memory import kept_heap
from taskeff.tasks.prompts import TokenizedExample

__all__ = ["Gram", "LoRA", "gradient_gram"]

Schedule = Literal["auto", "stored", "stored-half", "layer-major"]
# Enough for full speed: more leaves a CPU's caches, less leaves a GPU idle.
MAX_TOKENS = {"cpu": 1024, "cuda": 2048}
FP16_LOSS_SCALE = 1024.0  # keeps small output gradients above fp16's underflow; divided out again


def gradient_gram(
    model: PreTrainedModel,
    examples: Sequence[TokenizedExample | Mapping[str, Sequence[int]]],
    projection: LoRA | None = LoRA(),  # noqa: B008 - frozen
    *,
    targets: Sequence[str] | None = None,
    schedule: Schedule = "auto",
    memory: int | None = None,
    max_tokens: int | None = None,
    share_prefix: bool = True,
    prune: bool = True,
    attention: Literal["sdpa", "flash"] = "sdpa",
) -> Gram:
    """The Gram matrix of the examples' gradients, each of its own mean loss over answer tokens.

    Args:
        examples: `TokenizedExample`, or mappings with the keys `prompt_ids` and `answer_ids`.
        projection: None takes the true weight gradients of the same linears.
        targets: last parts of the linears' names (`q_proj`); None: all of the decoder blocks.
        schedule: `stored` keeps all gradients in fp32, `stored-half` in 16 bits, `layer-major`
            those of one block at a time and computes the forward pass twice; `auto` takes the
            first that fits `memory`.
        memory: bytes gradients and activations may take; None: what is free on the device.
        max_tokens: tokens that go through the model at once; default by device.
        share_prefix, prune: False computes prefix rows per example, the last block on all rows.
        attention: `flash` takes flash-attn's variable-length kernel (half precision, CUDA).

    Returns:
        A Gram of N examples in the order given.

    Raises:
        DataError: no examples, or one that is empty, too long or of another vocabulary.
        ModelError: an architecture whose attention or linears are not of a known kind, or flash
            attention where it cannot run.
        ConfigError: an unknown schedule or attention.
    """
    if attention not in ("sdpa", "flash"):
        raise ConfigError(f"attention {attention!r}: use sdpa or flash")
    given = _check(model, examples)
    blocks = find_targets(model, targets)
    most = max_tokens or MAX_TOKENS.get(model.device.type, MAX_TOKENS["cuda"])
    layouts = _micro_batches(model, given, most, share_prefix)
    chosen = _choose(schedule, model, blocks, projection, layouts, memory)
    gram: ProjectedGram | FullGram = FullGram(len(given))
    if projection is not None:
        gram = ProjectedGram(len(given), half=chosen == "stored-half")
    scale = FP16_LOSS_SCALE if model.dtype == torch.float16 else 1.0
    losses = np.full(len(given), np.nan)
    with _frozen(model), kept_heap():
        pruned = prunable(model, blocks[-1], _probe(model)) if prune else frozenset()
        flash = attention == "flash"
        work = Work(model, blocks, layouts, pruned, projection, gram, scale, flash)
        run = backward_by_layer if chosen == "layer-major" else backward_whole
        for layout, values in zip(layouts, run(work), strict=True):
            losses[list(layout.members)] = values.double().cpu().numpy()
    factor = (1.0 if projection is None else projection.scale**2) / scale**2
    # Some BLAS sum <G_i, G_j> and <G_j, G_i> in different orders.
    matrix = factor * (gram.total + gram.total.T).numpy() / 2
    return Gram(matrix, losses, tuple(example.id for example in given))


def _check(
    model: PreTrainedModel, examples: Sequence[TokenizedExample | Mapping[str, Sequence[int]]]
) -> list[TokenizedExample]:
    if not examples:
        raise DataError("there are no examples to take gradients of; label some first")
    config = model.config.get_text_config(decoder=True)
    window = getattr(config, "max_position_embeddings", None)
    return [_one(index, example, config, window) for index, example in enumerate(examples)]


def _one(index: int, example, config, window: int | None) -> TokenizedExample:
    if isinstance(example, Mapping):
        for key in ("prompt_ids", "answer_ids"):
            if key not in example:
                raise DataError(f"example {index} has no {key!r}")
        name = str(example.get("id", index))
        example = TokenizedExample(tuple(example["prompt_ids"]), tuple(example["answer_ids"]), name)
    name = repr(example.id) if example.id else str(index)
    if not example.prompt_ids:
        raise DataError(f"example {name}: the prompt has no tokens")
    if not example.answer_ids:
        raise DataError(f"example {name}: the label has no tokens; correct the label")
    tokens = example.prompt_ids + example.answer_ids
    if min(tokens) < 0 or max(tokens) >= config.vocab_size:
        raise DataError(
            f"example {name}: token {max(tokens)} is outside the model's vocabulary of "
            f"{config.vocab_size}; tokenise with the model's own tokenizer"
        )
    if window is not None and len(tokens) - 1 > window:
        raise DataError(
            f"example {name}: {len(tokens)} tokens exceed the model's window of {window}; "
            "shorten the text"
        )
    return example


def _micro_batches(
    model: PreTrainedModel,
    examples: Sequence[TokenizedExample],
    max_tokens: int,
    share_prefix: bool,
) -> list[Ragged]:
    """Examples of similar length together, at most `max_tokens` rows each."""
    common = shared_prefix([example.prompt_ids for example in examples]) if share_prefix else 0
    n_prefix = common if common >= MIN_SHARED and len(examples) > 1 else 0
    device = next(model.parameters()).device
    sizes = [len(e.prompt_ids) + len(e.answer_ids) - 1 for e in examples]
    order = sorted(range(len(examples)), key=lambda i: (sizes[i], len(examples[i].answer_ids)))
    batches: list[list[int]] = [[]]
    used = 0
    for i in order:
        if batches[-1] and used + sizes[i] > max_tokens:
            batches.append([])
            used = 0
        batches[-1].append(i)
        used += sizes[i]
    keeps = n_prefix if len(batches) > 1 else 0
    first = lay_out(examples, batches[0], n_prefix, device, keeps=keeps)
    cached = n_prefix > 0
    return [
        first,
        *(lay_out(examples, rest, n_prefix, device, cached=cached) for rest in batches[1:]),
    ]


def _choose(
    schedule: Schedule,
    model: PreTrainedModel,
    blocks: Sequence[Sequence[Target]],
    projection: LoRA | None,
    layouts: Sequence[Ragged],
    memory: int | None,
) -> Schedule:
    if schedule not in ("auto", "stored", "stored-half", "layer-major"):
        raise ConfigError(
            f"gradient schedule {schedule!r}: use auto, stored, stored-half or layer-major"
        )
    if schedule != "auto":
        return schedule
    if projection is None:
        return "stored" if len(layouts) == 1 else "layer-major"
    n = sum(len(layout.members) for layout in layouts)
    rows = max(layout.input_ids.numel() for layout in layouts)
    targets = [target for block in blocks for target in block]
    # Autograd keeps some two values per input and output feature of every linear and row.
    widths = sum(sum(target.weight.shape) for target in targets)
    passes = 2 * rows * widths * model.dtype.itemsize
    values = n * projection.rank * sum(t.weight.shape[0] for t in targets if t.recorded)
    if len(layouts) == 1:  # every linear is contracted as soon as it is recorded
        values //= len(blocks)
    free = _free_bytes(next(model.parameters()).device) if memory is None else memory
    if passes + 4 * values <= free:
        return "stored"
    return "stored-half" if passes + 2 * values <= free else "layer-major"


def _free_bytes(device: torch.device) -> int:
    """Bytes to plan with: most of what is free on a GPU, half of what is free on the host."""
    if device.type == "cuda":
        # What the allocator holds and nobody uses is free too.
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(0.8 * (torch.cuda.mem_get_info(device)[0] + held))
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (ValueError, OSError, AttributeError):
        return 4 << 30


def _probe(model: PreTrainedModel) -> Ragged:
    """Two tokens: enough to ask which linears the keys and values of the last block come from."""
    device = next(model.parameters()).device
    return lay_out([TokenizedExample((0, 0), (0,))], [0], 0, device)


@contextmanager
def _frozen(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode, no weight gradients; put back as it was."""
    training = model.training
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        model.train(training)
