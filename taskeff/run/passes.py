"""What passes take beside weights and gradients: the code of training and decoding itself, at the
model's own shape, on tensors without contents.

A model of two blocks and one of three are run; what each further block adds is their difference.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.nn.functional import cross_entropy
from transformers import PreTrainedConfig, PreTrainedModel

from taskeff.config import TrainingConfig
from taskeff.finetune.adapters import with_adapters
from taskeff.lm.decoding import DecodingState, prefill
from taskeff.lm.live import LiveBytes
from taskeff.lm.packing import answer_logits, pack
from taskeff.models import attention_choice, skeleton
from taskeff.tasks.prompts import TokenizedExample

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FEW = 2  # blocks of the smaller model


@dataclass(frozen=True)
class Count:
    """Values of a model's weights; those that train separately. block: of one decoder block.
    root: of all that is in no block. embedding: of one that trains and is not the head too.
    largest: of one tensor."""

    blocks: int
    block: int
    root: int
    trained_block: int
    trained_root: int
    embedding: int
    largest: int

    @property
    def all(self) -> int:
        """Of the whole model, adapters included."""
        return self.blocks * self.block + self.root

    @property
    def trained(self) -> int:
        """Of what AdamW updates."""
        return self.blocks * self.trained_block + self.trained_root


@dataclass(frozen=True, eq=False)
class Model:
    """What passes are of; `dtype` is what the weights are held in. Equal where passes are."""

    architecture: PreTrainedConfig
    dtype: str
    attn: str = "auto"
    training: TrainingConfig | None = None
    """Its method and checkpointing; None: as it is loaded, frozen."""

    @property
    def blocks(self) -> int:
        """The decoder's."""
        return self.architecture.get_text_config(decoder=True).num_hidden_layers

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @cached_property
    def _key(self) -> tuple[Any, ...]:
        training = self.training
        how = training and (training.method, str(training.lora), training.gradient_checkpointing)
        return self.architecture.to_json_string(), self.dtype, self.attn, how

    def few(self, blocks: int) -> PreTrainedModel:
        """The model with so many blocks, on no device."""
        architecture = copy.deepcopy(self.architecture)
        text = architecture.get_text_config(decoder=True)
        text.num_hidden_layers = blocks
        if kinds := getattr(text, "layer_types", None):
            text.layer_types = kinds[:blocks]
        attention = attention_choice(self.attn)
        model = skeleton(architecture, dtype=DTYPES[self.dtype], attn_implementation=attention)
        if self.training is None:
            return model.requires_grad_(False).eval()
        if self.training.method == "lora":
            with torch.device("meta"):
                model = with_adapters(model, self.training)
        if self.training.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        return model.train()


def count(model: Model) -> Count:
    """How many values the weights of `model` have."""
    sizes = []
    for n in (1, 2):
        built = model.few(n)
        weights = list(built.parameters())
        trained = sum(w.numel() for w in weights if w.requires_grad)
        sizes.append((sum(w.numel() for w in weights), trained))
    largest = max(w.numel() for w in weights)
    embedding = built.get_input_embeddings().get_parameter("weight")
    head = built.get_output_embeddings()
    tied = head is not None and head.weight is embedding
    apart = embedding.numel() if embedding.requires_grad and not tied else 0
    (one, one_trained), (two, two_trained) = sizes
    block, trained = two - one, two_trained - one_trained
    return Count(model.blocks, block, one - block, trained, one_trained - trained, apart, largest)


@lru_cache(maxsize=64)
def training_bytes(model: Model, tokens: int, rows: int, answers: int, *, half: bool) -> list[int]:
    """The peaks of a forward and backward pass above weights and gradients that are there already:
    activations, logits, the mask, gradients before they are added, casts of float32 weights. One
    for the forward pass, one for the backward pass of head and blocks, one for the embedding's.

    Args:
        tokens: of one packed row. rows: examples in it. answers: answer tokens of each.
        half: the pass runs in bfloat16 whatever the weights are.
    """
    each = max(1, tokens // rows - answers)
    examples = [TokenizedExample((0,) * each, (0,) * (answers + 1)) for _ in range(rows)]

    def measure(one: PreTrainedModel) -> list[int]:
        batch = pack(examples, prefix_length=0)
        embedded = one.get_input_embeddings()
        with LiveBytes(one.parameters()) as live:
            for _ in range(2):  # the first makes the gradients
                before, peaks = live.mark(), []

                def next_phase(*_: Any) -> None:
                    peaks.append(live.peak - before)  # noqa: B023 - used within the turn
                    live.mark()

                with _once_embedded(embedded, next_phase):
                    with torch.autocast("cpu", torch.bfloat16, enabled=half):
                        logits = answer_logits(one, batch).float()
                    loss = cross_entropy(logits, batch.targets, reduction="sum")
                    del logits
                    next_phase()
                    loss.backward()
                del loss
                next_phase()
        return [*peaks, 0][:3]

    return _whole(model, measure)


@lru_cache(maxsize=64)
def decoding_bytes(
    model: Model, tokens: int, row: int, new: int, *, choices: bool, half: bool = False
) -> int:
    """The peak of answering rows greedily above the weights: KV cache, its copies as rows finish,
    activations of the prompts.

    Args:
        tokens: of KV cache held at once. row: tokens of a prompt. new: of its answer.
        choices: labels are chosen too, from a copy of the cache.
        half: as for `training_bytes`.
    """
    rows = max(1, tokens // (row + new))
    prompt = (0,) * (row if rows > 1 else max(row, tokens - new))

    @torch.inference_mode()
    def measure(one: PreTrainedModel) -> list[int]:
        with LiveBytes() as live, torch.autocast("cpu", torch.bfloat16, enabled=half):
            state = prefill(one.eval(), None, 0, [prompt] * rows, new)
            filled = live.peak
            live.mark()
            left = iter((rows, rows - 1, rows - 2))

            def choose(logits: Tensor, numbers: list[int]) -> list[int | None]:
                logits.float().softmax(dim=-1).max(dim=-1)
                going = max(next(left, 0), 0)
                return [0 if k < going else None for k in range(len(numbers))]

            _decode(state, choose, choices)
            return [filled, live.peak]

    return max(_whole(model, measure))


def _filled(model: PreTrainedModel) -> PreTrainedModel:
    """`model` with tensors on the CPU, inside a `FakeTensorMode` without contents; tied ones stay
    so."""
    made: dict[int, Tensor] = {}

    def on_cpu(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            new = torch.empty_like(tensor, device="cpu")
            parameter = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = nn.Parameter(new, tensor.requires_grad) if parameter else new
        return made[id(tensor)]

    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in list(tensors.items()):
                if tensor is not None:
                    tensors[name] = on_cpu(tensor)  # type: ignore[assignment]
    return model


def _decode(state: DecodingState, choose: Callable, choices: bool) -> None:
    (state.select(state.rows) if choices else state).decode(choose)


@contextmanager
def _once_embedded(embedding: nn.Module, call: Callable[..., None]) -> Iterator[None]:
    """Call once the backward pass has gone through all blocks and is at the embedding."""

    def watch(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(call)

    handle = embedding.register_forward_hook(watch)
    try:
        yield
    finally:
        handle.remove()


def _whole(model: Model, measure: Callable[[PreTrainedModel], list[int]]) -> list[int]:
    """The phases that `measure` gives, of the model with all its blocks."""

    def measured(blocks: int) -> list[int]:
        built = model.few(blocks)
        with FakeTensorMode(allow_non_fake_inputs=True):
            return measure(_filled(built))

    if model.blocks <= FEW + 1:
        return measured(model.blocks)
    few, more = measured(FEW), measured(FEW + 1)
    further = model.blocks - FEW
    return [a + further * (b - a) for a, b in zip(few, more, strict=True)]
