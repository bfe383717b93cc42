"""Batched greedy generation with its own top-1 probabilities, and the greedy choice of a label.

Prompts that share a prefix have it computed once; suffixes run in batches of similar length and
leave as they finish. Everything comes from raw logits: the model's `generation_config` (repetition
penalties, sampling) is never read, since it would change confidence without anyone asking.

Shapes: B rows, P prefix tokens, T suffix tokens, H heads, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from taskeff.errors import DataError, ModelError
from taskeff.lm.decoding import DecodingState, prefill, prefill_prefix
from taskeff.lm.device import on_device
from taskeff.lm.packing import common_prefix

MAX_TOKENS = 4096  # tokens of KV cache held at once: 0.2 GB for 135M parameters, 0.5 GB for 8B bf16


@dataclass(frozen=True)
class Generation:
    """What one prompt was answered with.

    tokens: generated ids, the stop token excluded. top_probs: the probability of each.
    choice: index of the label found under the restriction to labels, None where none were given.
    stopped: a stop token ended the answer (otherwise `max_new_tokens` did).
    """

    index: int
    tokens: tuple[int, ...]
    top_probs: tuple[float, ...]
    choice: int | None
    stopped: bool


@torch.inference_mode()
def greedy(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Collection[int],
    choices: Sequence[Sequence[int]] | None = None,
    max_tokens: int = MAX_TOKENS,
    numbers: Sequence[int] | None = None,
) -> list[Generation]:
    """Greedy answers to `prompts`, in their order.

    Args:
        prompts: token ids, one BOS included where the model wants one.
        stop_ids: tokens that end an answer.
        choices: the answer tokens of each allowed label; `Generation.choice` is then the label
            that greedy decoding restricted to them arrives at.
        max_tokens: tokens of KV cache held at once; one row that needs more runs alone.
        numbers: what errors call each row; default its place among `prompts`.

    Raises:
        DataError: an empty prompt, one longer than the model's window or of another vocabulary,
            or labels that cannot be told apart.
        ModelError: the model's layers keep something other than keys and values, or its logits
            are not finite.
    """
    prompts = [tuple(prompt) for prompt in prompts]
    numbers = range(len(prompts)) if numbers is None else numbers
    _check(model, prompts, numbers, max_new_tokens)
    stop = frozenset(stop_ids)
    trie = None if choices is None else _Trie(choices, stop)
    if not prompts:
        return []
    n_prefix = common_prefix(prompts)
    found: dict[int, Generation] = {}
    with _evaluating(model):
        prefix = prefill_prefix(model, prompts[0][:n_prefix])
        for rows in _batches(model, prompts, n_prefix, max_new_tokens, max_tokens):
            suffixes = [prompts[i][n_prefix:] for i in rows]
            state = prefill(model, prefix, n_prefix, suffixes, max_new_tokens)
            picked = [None] * len(rows) if trie is None else trie.choose(state)
            answers = _Answers([numbers[i] for i in rows], max_new_tokens, stop)
            state.decode(answers.extend)
            for k, i in enumerate(rows):
                found[i] = answers.generation(k, i, picked[k])
    return [found[i] for i in range(len(prompts))]


class _Answers:
    """The unrestricted answers as they grow."""

    def __init__(self, numbers: Sequence[int], max_new_tokens: int, stop: frozenset[int]):
        self._limit, self._stop = max_new_tokens, stop
        self._numbers = numbers
        self._tokens: list[list[int]] = [[] for _ in numbers]
        self._top_probs: list[list[float]] = [[] for _ in numbers]
        self._stopped = [False] * len(numbers)

    def extend(self, logits: Tensor, rows: list[int]) -> list[int | None]:
        """Append a token to each row; see `DecodingState.decode`."""
        best, top = logits.float().softmax(dim=-1).max(dim=-1)
        # Fetched at once; a float32 holds any vocabulary's token.
        highests, tokens = torch.stack([best, top.float()]).tolist()
        fed: list[int | None] = []
        for row, token, highest in zip(rows, map(int, tokens), highests, strict=True):
            if not math.isfinite(highest):
                raise ModelError(
                    f"row {self._numbers[row]}: the model's logits are not finite; "
                    "load it in float32 or bfloat16"
                )
            self._stopped[row] = token in self._stop
            if not self._stopped[row]:
                self._tokens[row].append(token)
                self._top_probs[row].append(highest)
            done = self._stopped[row] or len(self._tokens[row]) >= self._limit
            fed.append(None if done else token)
        return fed

    def generation(self, row: int, index: int, choice: int | None) -> Generation:
        """The finished answer of a row."""
        return Generation(
            index,
            tuple(self._tokens[row]),
            tuple(self._top_probs[row]),
            choice,
            self._stopped[row],
        )


class _Trie:
    """Labels by their tokens, walked greedily: where a label is decided, no token is fed."""

    def __init__(self, choices: Sequence[Sequence[int]], stop: frozenset[int]):
        self._root: dict = {}
        self._stop = stop
        # Label index under the key None: "ends here". A subtree of one label is that label.
        for index, choice in enumerate(choices):
            node = self._root
            if not choice:
                raise DataError(f"choice {index} has no tokens; give every label some text")
            for token in choice:
                node = node.setdefault(int(token), {})
            if None in node:
                raise DataError(
                    f"choices {node[None]} and {index} have the same tokens; remove one of them"
                )
            node[None] = index
        if not stop and any(None in node and len(node) > 1 for node in _nodes(self._root)):
            raise DataError("one choice begins another: give stop_ids to tell where it ends")
        tokens = {token for node in _nodes(self._root) for token in node if token is not None}
        self._columns = sorted(tokens | stop)
        self._at = {token: k for k, token in enumerate(self._columns)}
        self._shallow = all(_only(child) is not None for child in self._root.values())

    def choose(self, state: DecodingState) -> list[int]:
        """The label of each row; `state` is left as it was."""
        nodes = dict.fromkeys(state.rows, self._root)
        chosen: dict[int, int] = {}
        columns = on_device(self._columns, state.logits.device)

        def walk(logits: Tensor, rows: list[int]) -> list[int | None]:
            fed: list[int | None] = []
            scores = logits[:, columns].tolist()
            for row, score in zip(rows, scores, strict=True):
                token = self._best(nodes[row], score)
                nodes[row] = nodes[row][token] if token is not None else {None: nodes[row][None]}
                decided = _only(nodes[row])
                if decided is not None:
                    chosen[row] = decided
                fed.append(None if decided is not None else token)
            return fed

        (state if self._shallow else state.select(state.rows)).decode(walk)
        return [chosen[row] for row in state.rows]

    def _best(self, node: dict, score: list[float]) -> int | None:
        def value(token: int | None) -> float:
            if token is None:
                return max(score[self._at[stop]] for stop in self._stop)
            return score[self._at[token]]

        return next(iter(node)) if len(node) == 1 else max(node, key=value)


def _nodes(node: dict) -> Iterator[dict]:
    yield node
    for token, child in node.items():
        if token is not None:
            yield from _nodes(child)


def _only(node: dict) -> int | None:
    """The label of a subtree that holds just one."""
    while len(node) == 1:
        token, child = next(iter(node.items()))
        if token is None:
            return child
        node = child
    return None


def _batches(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    n_prefix: int,
    max_new_tokens: int,
    max_tokens: int,
) -> Iterator[list[int]]:
    """Row numbers of each batch, shortest prompts first."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    longest = len(prompts[order[-1]]) + max_new_tokens
    window = getattr(model.config.get_text_config(decoder=True), "sliding_window", None)
    # A sliding window counts cache places, padding included: where it binds there must be none.
    exact = window is not None and longest > window
    batch: list[int] = []
    for i in order:
        size = (len(batch) + 1) * (len(prompts[i]) + max_new_tokens)
        ragged = exact and batch and len(prompts[i]) != len(prompts[batch[0]])
        if batch and (size > max_tokens or ragged):
            yield batch
            batch = []
        batch.append(i)
    yield batch


def _check(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    numbers: Sequence[int],
    max_new_tokens: int,
) -> None:
    config = model.config.get_text_config(decoder=True)
    kinds = set(getattr(config, "layer_types", None) or ()) - {
        "full_attention",
        "sliding_attention",
    }
    if kinds:
        raise ModelError(
            f"layers of type {', '.join(sorted(kinds))} keep no keys and values that rows could "
            "share; use a model of ordinary attention layers"
        )
    if max_new_tokens < 1:
        raise DataError(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
    window = getattr(config, "max_position_embeddings", None)
    for number, prompt in zip(numbers, prompts, strict=True):
        if not prompt:
            raise DataError(f"row {number}: the prompt is empty")
        if min(prompt) < 0 or max(prompt) >= config.vocab_size:
            raise DataError(
                f"row {number}: token {max(prompt)} is outside the model's vocabulary of "
                f"{config.vocab_size}; tokenise with the model's own tokenizer"
            )
        if window is not None and len(prompt) + max_new_tokens > window:
            raise DataError(
                f"row {number}: {len(prompt)} prompt tokens and {max_new_tokens} new ones exceed "
                f"the model's window of {window}; shorten the text, or skip or truncate long rows"
            )


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
