"""Batched greedy generation with its own top-1 probabilities, and the greedy choice of a label.

Prompts that share a prefix have it computed once; suffixes run in batches of similar length and
leave as they finish. Everything comes from raw logits: the model's `generation_config` (repetition
penalties, sampling) is never read, since it would change confidence without anyone asking.

Shapes: B rows, P prefix tokens, T suffix tokens, H heads, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from taskeff.errors import DataError, ModelError
from taskeff.packing import MIN_SHARED, shared_prefix

MAX_TOKENS = 8192  # tokens of KV cache held at once: 0.4 GB for 135M parameters, 1 GB for 8B (bf16)


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
) -> list[Generation]:
    """Greedy answers to `prompts`, in their order.

    Args:
        prompts: token ids, one BOS included where the model wants one.
        stop_ids: tokens that end an answer.
        choices: the answer tokens of each allowed label; `Generation.choice` is then the label
            that greedy decoding restricted to them arrives at.
        max_tokens: tokens of KV cache held at once; one row that needs more runs alone.

    Raises:
        DataError: an empty prompt, one longer than the model's window, or labels that cannot be
            told apart.
        ModelError: the model's layers keep something other than keys and values, or its logits
            are not finite.
    """
    prompts = [tuple(prompt) for prompt in prompts]
    _check(model, prompts, max_new_tokens)
    stop = frozenset(stop_ids)
    trie = None if choices is None else _Trie(choices, stop)
    if not prompts:
        return []
    common = shared_prefix(prompts)
    n_prefix = common if common >= MIN_SHARED and len(prompts) > 1 else 0
    found: dict[int, Generation] = {}
    with _evaluating(model):
        prefix = _prefill_prefix(model, prompts[0][:n_prefix])
        for rows in _batches(model, prompts, n_prefix, max_new_tokens, max_tokens):
            suffixes = [prompts[i][n_prefix:] for i in rows]
            state = _prefill(model, prefix, n_prefix, suffixes, max_new_tokens)
            picked = [None] * len(rows) if trie is None else trie.choose(state)
            answers = _Answers(len(rows), max_new_tokens, stop, rows)
            state.decode(answers.extend)
            for k, i in enumerate(rows):
                found[i] = answers.generation(k, i, picked[k])
    return [found[i] for i in range(len(prompts))]


_KeysValues = tuple[Tensor, Tensor]


class _Layer(DynamicLayer):
    """A cache layer that reserves room for the whole answer, so that no step copies the cache."""

    def __init__(self, prefix: _KeysValues | None, capacity: int):
        super().__init__()
        self._prefix = prefix
        self._capacity = capacity
        self._length = 0 if prefix is None else prefix[0].shape[-2]
        self.stored: _KeysValues

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.stored = self._reserve(key_states, 0), self._reserve(value_states, 1)
        end = self._length + key_states.shape[-2]
        for store, states in zip(self.stored, (key_states, value_states), strict=True):
            store[:, :, self._length : end] = states
        self._length = end
        self.keys, self.values = (store[:, :, :end] for store in self.stored)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self._length

    def select(self, rows: Tensor) -> _Layer:
        """A copy with the given rows only."""
        chosen = _Layer(None, self._capacity)
        chosen._length = self._length
        chosen.dtype, chosen.device, chosen.is_initialized = self.dtype, self.device, True
        chosen.stored = self.stored[0][rows], self.stored[1][rows]
        chosen.keys, chosen.values = (store[:, :, : self._length] for store in chosen.stored)
        return chosen

    def _reserve(self, states: Tensor, which: int) -> Tensor:
        rows, heads, _, width = states.shape
        store = states.new_zeros(rows, heads, self._capacity, width)
        if self._prefix is not None:
            store[:, :, : self._length] = self._prefix[which]
        return store


@dataclass
class _State:
    """B rows in the middle of decoding: layout `prefix, left padding, suffix, generated`.

    mask: (B, P + T + generated) int64. positions: (B,) int64, of the next token to be fed.
    logits: (B, V) of the last token fed.
    """

    model: PreTrainedModel
    layers: list[_Layer]
    mask: Tensor
    positions: Tensor
    logits: Tensor
    rows: list[int] = field(default_factory=list)

    def select(self, kept: Sequence[int]) -> _State:
        """A copy with the rows at `kept` only."""
        at = torch.tensor(kept, device=self.mask.device)
        layers = [layer.select(at) for layer in self.layers]
        rows = [self.rows[k] for k in kept]
        return _State(self.model, layers, self.mask[at], self.positions[at], self.logits[at], rows)

    def decode(self, choose: Callable[[Tensor, list[int]], list[int | None]]) -> None:
        """Feed what `choose` returns for each row until it returns None for all; uses up self.

        choose: ((B, V) logits, row numbers) -> each row's next token, None where it is finished.
        """
        state = self
        while True:
            tokens = choose(state.logits, state.rows)
            kept = [k for k, token in enumerate(tokens) if token is not None]
            if not kept:
                return
            if len(kept) < len(tokens):
                state = state.select(kept)
            state._feed([token for token in tokens if token is not None])

    def _feed(self, tokens: list[int]) -> None:
        ids = torch.tensor(tokens, device=self.mask.device)[:, None]
        self.mask = torch.cat([self.mask, torch.ones_like(ids)], dim=1)
        output = self.model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=self.positions[:, None],
            past_key_values=_cache(self.layers),
            use_cache=True,
        )
        self.positions = self.positions + 1
        self.logits = output.logits[:, -1]


class _Answers:
    """The unrestricted answers as they grow."""

    def __init__(self, n: int, max_new_tokens: int, stop: frozenset[int], names: Sequence[int]):
        self._limit, self._stop, self._names = max_new_tokens, stop, names
        self._tokens: list[list[int]] = [[] for _ in range(n)]
        self._probs: list[list[float]] = [[] for _ in range(n)]
        self._stopped = [False] * n

    def extend(self, logits: Tensor, rows: list[int]) -> list[int | None]:
        """Append each row's most probable token; see `_State.decode`."""
        best, top = logits.float().max(dim=-1)
        probs = (best - logits.float().logsumexp(dim=-1)).exp()
        fed: list[int | None] = []
        for row, token, prob in zip(rows, top.tolist(), probs.tolist(), strict=True):
            if prob != prob:
                raise ModelError(
                    f"row {self._names[row]}: the model's logits are not finite; "
                    "load it in float32 or bfloat16"
                )
            self._stopped[row] = token in self._stop
            if not self._stopped[row]:
                self._tokens[row].append(token)
                self._probs[row].append(prob)
            done = self._stopped[row] or len(self._tokens[row]) >= self._limit
            fed.append(None if done else token)
        return fed

    def generation(self, row: int, index: int, choice: int | None) -> Generation:
        """The finished answer of a row."""
        tokens, probs = tuple(self._tokens[row]), tuple(self._probs[row])
        return Generation(index, tokens, probs, choice, self._stopped[row])


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

    def choose(self, state: _State) -> list[int]:
        """The label of each row; `state` is left as it was."""
        nodes = dict.fromkeys(state.rows, self._root)
        chosen: dict[int, int] = {}
        columns = torch.tensor(self._columns, device=state.logits.device)

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


def _prefill_prefix(model: PreTrainedModel, prefix: Sequence[int]) -> list[_KeysValues] | None:
    """Keys and values (1, H, P, width) of every layer over the shared prefix."""
    if not prefix:
        return None
    layers = [_Layer(None, len(prefix)) for _ in range(_n_layers(model))]
    ids = torch.tensor([list(prefix)], device=_device(model))
    model(input_ids=ids, past_key_values=_cache(layers), use_cache=True, logits_to_keep=1)
    return [layer.stored for layer in layers]


def _prefill(
    model: PreTrainedModel,
    prefix: list[_KeysValues] | None,
    n_prefix: int,
    suffixes: Sequence[Sequence[int]],
    max_new_tokens: int,
) -> _State:
    """The state after the prompts; suffixes are padded on the left so that all end together."""
    width = max(map(len, suffixes))
    pads = [width - len(suffix) for suffix in suffixes]
    ids = [[0] * pad + list(suffix) for pad, suffix in zip(pads, suffixes, strict=True)]
    mask = [[1] * n_prefix + [0] * pad + [1] * (width - pad) for pad in pads]
    positions = [
        [0] * pad + list(range(n_prefix, n_prefix + len(suffix)))
        for pad, suffix in zip(pads, suffixes, strict=True)
    ]
    device = _device(model)
    capacity = n_prefix + width + max_new_tokens
    layers = [_Layer(prefix[k] if prefix else None, capacity) for k in range(_n_layers(model))]
    output = model(
        input_ids=torch.tensor(ids, device=device),
        attention_mask=torch.tensor(mask, device=device),
        position_ids=torch.tensor(positions, device=device),
        past_key_values=_cache(layers),
        use_cache=True,
        logits_to_keep=1,
    )
    return _State(
        model,
        layers,
        torch.tensor(mask, device=device),
        torch.tensor([n_prefix + len(suffix) for suffix in suffixes], device=device),
        output.logits[:, -1],
        list(range(len(suffixes))),
    )


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


def _check(model: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
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
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise DataError(f"row {index}: the prompt is empty")
        if window is not None and len(prompt) + max_new_tokens > window:
            raise DataError(
                f"row {index}: {len(prompt)} prompt tokens and {max_new_tokens} new ones exceed "
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


def _cache(layers: Sequence[_Layer]) -> Cache:
    return Cache(layers=list(layers))


def _n_layers(model: PreTrainedModel) -> int:
    return model.config.get_text_config(decoder=True).num_hidden_layers


def _device(model: PreTrainedModel) -> torch.device:
    return next(model.parameters()).device
