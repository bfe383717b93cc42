"""Rows in the middle of decoding: a KV cache that never moves, prompts in, one token at a time.

Shapes: B rows, P prefix tokens, T suffix tokens, H heads, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from taskeff.lm.device import on_device

KeysValues = tuple[Tensor, Tensor]


class _Layer(DynamicLayer):
    """A cache layer that reserves room for the whole answer, so that no step copies the cache."""

    def __init__(self, prefix: KeysValues | None, capacity: int):
        super().__init__()
        self._prefix = prefix
        self._capacity = capacity
        self._length = 0 if prefix is None else prefix[0].shape[-2]
        self.stored: KeysValues

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
class DecodingState:
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

    def select(self, kept: Sequence[int]) -> DecodingState:
        """A copy with the rows at `kept` only."""
        at = on_device(kept, self.mask.device)
        layers = [layer.select(at) for layer in self.layers]
        rows = [self.rows[k] for k in kept]
        return DecodingState(
            self.model, layers, self.mask[at], self.positions[at], self.logits[at], rows
        )

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
        ids = on_device(tokens, self.mask.device)[:, None]
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


def prefill_prefix(model: PreTrainedModel, prefix: Sequence[int]) -> list[KeysValues] | None:
    """Keys and values (1, H, P, width) of every layer over the shared prefix."""
    if not prefix:
        return None
    layers = [_Layer(None, len(prefix)) for _ in range(_n_layers(model))]
    ids = on_device([list(prefix)], _device(model))
    model(input_ids=ids, past_key_values=_cache(layers), use_cache=True, logits_to_keep=1)
    return [layer.stored for layer in layers]


def prefill(
    model: PreTrainedModel,
    prefix: list[KeysValues] | None,
    n_prefix: int,
    suffixes: Sequence[Sequence[int]],
    max_new_tokens: int,
) -> DecodingState:
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
    seen = on_device(mask, device)
    # Drawn out, not sliced: of a slice torch makes one product a row where weights are frozen.
    last = torch.arange(width - 1, width, device=device)
    output = model(
        input_ids=on_device(ids, device),
        attention_mask=seen,
        position_ids=on_device(positions, device),
        past_key_values=_cache(layers),
        use_cache=True,
        logits_to_keep=last,
    )
    return DecodingState(
        model,
        layers,
        seen,
        on_device([n_prefix + len(suffix) for suffix in suffixes], device),
        output.logits[:, -1],
        list(range(len(suffixes))),
    )


def _cache(layers: Sequence[_Layer]) -> Cache:
    return Cache(layers=list(layers))


def _n_layers(model: PreTrainedModel) -> int:
    return model.config.get_text_config(decoder=True).num_hidden_layers


def _device(model: PreTrainedModel) -> torch.device:
    return next(model.parameters()).device
