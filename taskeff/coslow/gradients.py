"""Per-example gradients -> exact Gram matrix.

The gradient is that of rank-R LoRA matrices at initialisation on every linear of the decoder
blocks. B starts at 0, so grad A is 0 and grad B of example i is s * sum_t delta_it (A x_it)^T: one
forward and one activation-only backward pass give it, with frozen weights and no adapter attached
(arXiv 2512.24991). A plan says which examples go through the model together; whoever computes some
of its micro-batches gets the same gradients.

Shapes: N examples, T tokens, D hidden, O out features, R LoRA rank, L answer tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from taskeff.coslow.gram import Floats, Gathering, Gradients, Gram, Tiles
from taskeff.coslow.linears import LoRA, find_targets, prunable
from taskeff.coslow.passes import Work, backward
from taskeff.errors import DataError
from taskeff.lm.packing import common_prefix
from taskeff.lm.ragged import Ragged, lay_out, lay_out_prefix, rows_of
from taskeff.memory import free_bytes, kept_heap
from taskeff.models import window
from taskeff.tasks.prompts import TokenizedExample

Example = TokenizedExample | Mapping[str, Sequence[int]]
# Enough for full speed: more leaves a CPU's caches, less leaves a GPU idle.
MAX_TOKENS = {"cpu": 1024, "cuda": 2048}
FP16_LOSS_SCALE = 1024.0  # keeps small output gradients above fp16's underflow; divided out again


@dataclass(frozen=True)
class Plan:
    """How N examples go through a model.

    batches: members of each micro-batch. n_prefix: tokens at the start of all that are computed
    once. projection: None for true weight gradients. targets: see `gradient_gram`.
    """

    examples: tuple[TokenizedExample, ...]
    batches: tuple[tuple[int, ...], ...]
    n_prefix: int
    projection: LoRA | None
    targets: tuple[str, ...] | None
    prune: bool = True

    @classmethod
    def make(
        cls,
        architecture: PreTrainedConfig,
        examples: Sequence[Example],
        projection: LoRA | None,
        *,
        targets: Sequence[str] | None = None,
        max_tokens: int,
        share_prefix: bool = True,
        prune: bool = True,
    ) -> Plan:
        """Examples of similar length together, at most `max_tokens` rows in a micro-batch.

        Raises:
            DataError: no examples, or one that is empty, too long or of another vocabulary.
        """
        if not examples:
            raise DataError("there are no examples to take gradients of; label some first")
        given = tuple(_one(i, example, architecture) for i, example in enumerate(examples))
        sizes = [rows_of(example) for example in given]
        order = sorted(range(len(given)), key=lambda i: (sizes[i], len(given[i].answer_ids)))
        batches: list[list[int]] = []
        used = 0
        for i in order:
            if not batches or used + sizes[i] > max_tokens:
                batches.append([])
                used = 0
            batches[-1].append(i)
            used += sizes[i]
        shared = common_prefix([example.prompt_ids for example in given]) if share_prefix else 0
        names = None if targets is None else tuple(targets)
        return cls(given, tuple(map(tuple, batches)), shared, projection, names, prune)

    def rows(self, batch: int) -> int:
        """Rows of a micro-batch, those of the prefix for every example."""
        return sum(rows_of(self.examples[member]) for member in self.batches[batch])

    def members(self, batches: Sequence[int]) -> list[int]:
        """The examples of some micro-batches, in the order in which their gradients are kept."""
        return [member for batch in batches for member in self.batches[batch]]

    def gram(self, tiles: Tiles, losses: Floats) -> Gram:
        """The finished matrix, from products of gradients as they are kept."""
        factor = 1.0 if self.projection is None else self.projection.scale**2
        return Gram(factor * tiles.matrix, losses, tuple(one.id for one in self.examples))


class Part:
    """Some micro-batches of a plan, on a model.

    Attributes:
        losses: (N,) float64, NaN for examples that are not in this part.
    """

    def __init__(self, model: PreTrainedModel, plan: Plan, batches: Sequence[int]):
        self.model, self.plan = model, plan
        self.members = plan.members(batches)
        self.losses = np.full(len(plan.examples), np.nan)
        self._blocks = find_targets(model, plan.targets)
        device = next(model.parameters()).device
        first = plan.examples[0].prompt_ids[: plan.n_prefix]
        self._layouts = [lay_out_prefix(first, device)] if plan.n_prefix else []
        for batch in batches:
            layout = lay_out(plan.examples, plan.batches[batch], plan.n_prefix, device)
            self._layouts.append(layout)
        self._loss_scale = FP16_LOSS_SCALE if model.dtype == torch.float16 else 1.0

    def sweep(self, groups: int, done: Callable[[str, Gradients], None]) -> Iterator[int]:
        """Compute the gradients, so many groups of decoder blocks one after the other, the last
        group first; yields what is left to do after each.

        Args:
            groups: 1 is fastest; each more keeps less, for one more forward pass in all.
            done: called with each linear's name and gradients, in the order of `members`.
        """
        plan, examples = self.plan, self.plan.examples
        lengths = [rows_of(examples[member]) for member in self.members]
        gathering = Gathering(
            self.members, lengths, plan.projection is None, done, self._loss_scale
        )
        with _frozen(self.model), kept_heap():
            pruned = frozenset()
            if plan.prune:
                pruned = prunable(self.model, self._blocks[-1], _probe(self.model))
            yield from backward(
                Work(
                    self.model,
                    self._blocks,
                    _even(len(self._blocks), groups),
                    self._layouts,
                    pruned,
                    plan.projection,
                    gathering,
                    self.losses,
                    self._loss_scale,
                )
            )

    def groups(self, memory: int | None, *, contracted: bool = False) -> int:
        """The fewest groups of blocks whose gradients and activations fit `memory` bytes; where
        none does, those that take least.

        Args:
            memory: None: what is free on the device.
            contracted: gradients are let go as soon as they are complete; else they are kept
                twice until their group is done: as computed, and as handed on.
        """
        free = free_bytes(self.model.device) if memory is None else memory
        counts = range(1, len(self._blocks) + 1)
        needs = [self.need(count, contracted=contracted) for count in counts]
        fits = (count for count, need in zip(counts, needs, strict=True) if need <= free)
        return next(fits, 1 + needs.index(min(needs)))

    def need(self, groups: int, *, contracted: bool) -> int:
        """Estimated bytes of the largest of so many groups; see `groups`."""
        recorded = [t.weight.shape for block in self._blocks for t in block if t.recorded]
        micro = [layout for layout in self._layouts if layout.members]
        rows = [layout.input_ids.numel() for layout in micro]
        # Autograd keeps some two values per input and output feature of every linear and row.
        widths = sum(sum(target.weight.shape) for block in self._blocks for target in block)
        passes = 2 * max(rows) * widths * self.model.dtype.itemsize / groups
        if self.plan.projection is None:
            values = sum(rows) * sum(map(sum, recorded))
        else:
            values = len(self.members) * self.plan.projection.rank * sum(o for o, _ in recorded)
        if not contracted:
            values = 2 * values / groups
        else:  # with one micro-batch, every linear is contracted as soon as it is recorded
            values /= len(self._blocks) if len(micro) == 1 else groups
        between = 0
        if groups > 1:
            hidden = self.model.config.get_text_config(decoder=True).hidden_size
            unique = sum(r if x.unique is None else len(x.unique) for r, x in zip(rows, micro))
            between = hidden * self.model.dtype.itemsize * (unique * (groups - 1) + sum(rows))
        return int(passes + 4 * values + between)


def gradient_gram(
    model: PreTrainedModel,
    examples: Sequence[Example],
    projection: LoRA | None = LoRA(),  # noqa: B008 - frozen
    *,
    targets: Sequence[str] | None = None,
    groups: int | None = None,
    memory: int | None = None,
    max_tokens: int | None = None,
    share_prefix: bool = True,
    prune: bool = True,
) -> Gram:
    """The Gram matrix of the examples' gradients, each of its own mean loss over answer tokens.

    Args:
        examples: `TokenizedExample`, or mappings with the keys `prompt_ids` and `answer_ids`.
        projection: None takes the true weight gradients of the same linears.
        targets: last parts of the linears' names (`q_proj`); None: all of the decoder blocks.
        groups: groups of decoder blocks whose gradients are computed one after the other; None:
            as few as fit `memory`. Any number gives the same matrix.
        memory: bytes gradients and activations may take; None: what is free on the device.
        max_tokens: tokens that go through the model at once; default by device.
        share_prefix, prune: False computes prefix rows per example, the last block on all rows.

    Returns:
        A Gram of N examples in the order given.

    Raises:
        DataError: no examples, or one that is empty, too long or of another vocabulary.
        ModelError: an architecture whose attention or linears are not of a known kind.
    """
    plan = Plan.make(
        model.config,
        examples,
        projection,
        targets=targets,
        max_tokens=max_tokens or MAX_TOKENS.get(model.device.type, MAX_TOKENS["cuda"]),
        share_prefix=share_prefix,
        prune=prune,
    )
    part, tiles = Part(model, plan, range(len(plan.batches))), Tiles(len(plan.examples))

    def contract(name: str, found: Gradients) -> None:
        tiles.add(part.members, part.members, found.products(found))

    for _ in part.sweep(groups or part.groups(memory, contracted=True), contract):
        pass
    return plan.gram(tiles, part.losses)


def _one(index: int, example: Example, architecture: PreTrainedConfig) -> TokenizedExample:
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
    vocabulary = architecture.get_text_config(decoder=True).vocab_size
    if min(tokens) < 0 or max(tokens) >= vocabulary:
        raise DataError(
            f"example {name}: token {max(tokens)} is outside the model's vocabulary of "
            f"{vocabulary}; tokenise with the model's own tokenizer"
        )
    limit = window(architecture)
    if limit is not None and len(tokens) - 1 > limit:
        raise DataError(
            f"example {name}: {len(tokens)} tokens exceed the model's window of {limit}; "
            "shorten the text"
        )
    return example


def _even(blocks: int, groups: int) -> list[range]:
    """Numbers of the blocks of each group."""
    groups = min(groups, blocks)
    ends = [blocks * number // groups for number in range(groups + 1)]
    return [range(start, end) for start, end in pairwise(ends)]


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
