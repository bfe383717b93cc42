"""Engines that fail, stop or cost nothing, where a test wants them to. Imports no torch."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path

import ray

from taskeff.config_file import load_config
from taskeff.coslow.confidence import Confidence
from taskeff.coslow.engines import BuiltinEngine
from taskeff.errors import ModelError
from taskeff.rank_config import RankConfig


class Constant:
    """An engine of constant cost: a confidence from the tokens' sum, without a model."""

    model = None

    def __init__(self, config, settings, scoring):
        pass

    def score(self, prompts, *, stop_ids, max_new_tokens):
        """See `taskeff.coslow.engines.ConfidenceEngine`."""
        return [Confidence((sum(ids) * 2654435761 % 10007) / 10007) for ids in prompts]


class Poisoned(Constant):
    """Cannot take one row: it raises for the whole shard, as an engine's batch would."""

    def score(self, prompts, *, stop_ids, max_new_tokens):
        """Fails on the first row of the pool, whichever rows come with it."""
        if any(sum(ids) % 7 == 0 for ids in prompts):
            raise ValueError("a sum that seven divides")
        return super().score(prompts, stop_ids=stop_ids, max_new_tokens=max_new_tokens)


class OutOfMemory(Constant):
    """Fails for no fault of a row."""

    def score(self, prompts, *, stop_ids, max_new_tokens):
        """Always out of memory."""
        raise RuntimeError("out of memory\nand a traceback")


class Gate:
    """A place where a test stops an engine: two pipes in a folder, so that nobody polls."""

    def __init__(self, folder: Path):
        self.folder = folder

    def build(self) -> Gate:
        """Make the pipes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("reached", "never"):
            os.mkfifo(self.folder / name)
        return self

    def wait_until_reached(self) -> None:
        """Return once an engine stands at the gate."""
        (self.folder / "reached").read_bytes()

    def stand(self) -> None:
        """Say so, then wait for an end that only a kill brings."""
        (self.folder / "reached").write_bytes(b"")
        (self.folder / "never").read_bytes()


class DiesOnce(BuiltinEngine):
    """Its actor is killed in the middle of the third shard, the first time."""

    def __init__(self, folder, config, settings, scoring):
        super().__init__(config, settings, scoring)
        self._orders, self._shards = folder, 0

    def score(self, prompts, *, stop_ids, max_new_tokens):
        """See `taskeff.coslow.engines.ConfidenceEngine`."""
        found = super().score(prompts, stop_ids=stop_ids, max_new_tokens=max_new_tokens)
        self._shards += 1
        if self._shards == 3:
            try:
                (self._orders / "killed").touch(exist_ok=False)
            except FileExistsError:
                return found
            os.kill(os.getpid(), signal.SIGKILL)
        return found


class StandsAtThird(BuiltinEngine):
    """Stops at its third shard for ever."""

    def __init__(self, folder, config, settings, scoring):
        super().__init__(config, settings, scoring)
        self._gate, self._shards = Gate(folder), 0

    def score(self, prompts, *, stop_ids, max_new_tokens):
        """See `taskeff.coslow.engines.ConfidenceEngine`."""
        self._shards += 1
        if self._shards == 3:
            self._gate.stand()
        return super().score(prompts, stop_ids=stop_ids, max_new_tokens=max_new_tokens)


class StandsOnDoomedNode(BuiltinEngine):
    """Stops for ever at its second shard, on the node that is going to be removed."""

    def __init__(self, folder, config, settings, scoring):
        super().__init__(config, settings, scoring)
        self._gate, self._shards = Gate(folder), 0

    def score(self, prompts, *, stop_ids, max_new_tokens):
        """See `taskeff.coslow.engines.ConfidenceEngine`."""
        self._shards += 1
        doomed = (self._gate.folder / "doomed").read_text()
        if self._shards == 2 and ray.get_runtime_context().get_node_id() == doomed:
            self._gate.stand()
        return super().score(prompts, stop_ids=stop_ids, max_new_tokens=max_new_tokens)


class CannotStart(Constant):
    """Whose model cannot be loaded."""

    def __init__(self, config, settings, scoring):
        raise ModelError("cannot load the model of 'x': no such file")


if __name__ == "__main__":
    # A driver of its own, for a test to kill: CONFIG ENGINE GATE.
    from taskeff.distributed.coslow import OnRay
    from taskeff.run.ranking import rank
    from tests.distributed import engines

    # By its module's name: what is defined in a script reaches the actors as a copy.
    engine = partial(getattr(engines, sys.argv[2]), Path(sys.argv[3]))
    rank(load_config(sys.argv[1], None, RankConfig), OnRay(engine))
