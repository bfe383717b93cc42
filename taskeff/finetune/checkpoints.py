"""What a cell may leave in storage: a state to resume from while it trains, its weights after.

States go through torch.distributed.checkpoint, every worker writing its own share, below the
cell's `checkpoint/`. `latest.json` is written last and names the state that counts.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from taskeff.errors import StorageError, redact
from taskeff.finetune.strategy import Strategy
from taskeff.storage import Store

log = logging.getLogger(__name__)

MARKER = "latest.json"


class Checkpoints:
    """The resumable states of one cell; only the newest is kept.

    Args:
        folder: the cell's own.
        minutes: time between two states.
    """

    def __init__(self, folder: Store, minutes: float, workers: PartialState):
        self._folder = folder.child("checkpoint")
        self._seconds = 60 * minutes
        self._workers = workers
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time by this worker's clock."""
        return time.monotonic() - self._last >= self._seconds

    def save(self, strategy: Strategy, best: list[Tensor] | None, progress: dict[str, Any]) -> None:
        """Publish a state; a collective call. `progress["step"]` names it.

        Raises:
            StorageError: the storage cannot be written.
        """
        name = f"step={progress['step']}"
        place = self._folder.child(name)
        with _storage_errors(f"cannot write {redact(place.uri)}"):
            save(
                _tensors(strategy, best),
                checkpoint_id=place.uri,
                no_dist=not dist.is_initialized(),
            )
        if self._workers.is_main_process:
            older = [n for n in self._folder.names() if n not in (name, MARKER)]
            self._folder.write_json({**progress, **_layout(strategy)}, MARKER)
            for n in older:
                self._folder.remove_tree(n)
        self._last = time.monotonic()

    def latest(self, strategy: Strategy) -> dict[str, Any] | None:
        """The newest state's progress, None if there is none for this strategy and workers."""
        found = [None]
        if self._workers.is_main_process and self._folder.exists(MARKER):
            try:
                found = [self._folder.read_json(MARKER)]
            except StorageError as error:
                log.warning("%s; the cell starts again", error)
        (progress,) = broadcast_object_list(found)
        if progress is None:
            return None
        layout = {key: progress.pop(key) for key in _layout(strategy)}
        if layout != _layout(strategy):
            log.warning("%s is of %s; the cell starts again", self._folder.path(), layout)
            return None
        return progress

    def load(self, strategy: Strategy, best: list[Tensor] | None, progress: dict[str, Any]) -> None:
        """Fill the strategy's weights and moments, and `best` where given, in place.

        Raises:
            StorageError: the state is damaged; every worker raises.
        """
        tensors = _tensors(strategy, best)
        place = self._folder.child(f"step={progress['step']}")
        with _storage_errors(f"cannot read {redact(place.uri)}"):
            load(tensors, checkpoint_id=place.uri, no_dist=not dist.is_initialized())
        strategy.refresh()
        torch.set_rng_state(tensors[_rng_name(strategy, "cpu")])
        if strategy.device.type == "cuda":
            torch.cuda.set_rng_state(tensors[_rng_name(strategy, "cuda")])


@contextmanager
def _storage_errors(what: str) -> Iterator[None]:
    try:
        yield
    except CheckpointException as error:
        # Its text is every worker's traceback.
        first, _ = next(iter(error.failures.values()))
        raise StorageError(f"{what}: {type(first).__name__}: {first}") from error


def publish_weights(strategy: Strategy, folder: Store) -> None:
    """Write the trained model, or the adapters, in Hugging Face's layout; a collective call."""
    main = strategy.workers.is_main_process
    # Every worker takes part in gathering; one holds the result.
    whole = {name: weight for name, weight in strategy.whole_weights() if main}
    if not main:
        return
    model: Any = strategy.module
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch, state_dict=whole, max_shard_size="2GB")
        for path in sorted(Path(scratch).iterdir()):
            folder.write_bytes(path.read_bytes(), "weights", path.name)


def _layout(strategy: Strategy) -> dict[str, Any]:
    return {"strategy": strategy.name, "workers": strategy.workers.num_processes}


def _tensors(strategy: Strategy, best: list[Tensor] | None) -> dict[str, Tensor]:
    rank = strategy.workers.process_index
    tensors = dict(strategy.state())
    tensors[_rng_name(strategy, "cpu")] = torch.get_rng_state()
    if strategy.device.type == "cuda":
        tensors[_rng_name(strategy, "cuda")] = torch.cuda.get_rng_state()
    tensors |= {f"best/rank{rank}/{i}": tensor for i, tensor in enumerate(best or ())}
    return tensors


def _rng_name(strategy: Strategy, device: str) -> str:
    return f"rng/rank{strategy.workers.process_index}/{device}"
