"""One data set's way to CoS-Low: shards of confidence, selection, labels, gradients, result.

`select`, `score`, `calibrate` and `rank` all go this way. Each step publishes its file last and
keeps a digest of what it was made from, so that it runs again only when that changed:

    part-*.parquet   confidences of a shard                                   (shards)
    pool.json        the pool's parts, as its reader met them                 (data_set)
    selection.json   the examples drawn, with the labels their source has     (draw)
    to_annotate.*    the same to fill in, where labels are missing            (handoff)
    cosines.parquet  pairwise gradient cosines                                (result)
    coslow.json      CoS-Low
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from taskeff.coslow.data_set import DataSet, scored_pool, shards_to_score
from taskeff.coslow.draw import Waiting, draw, drawn, labelled
from taskeff.coslow.result import RESULT, check_result, inputs_of, measure
from taskeff.coslow.shards import Shard, publish_shard
from taskeff.errors import TaskeffError
from taskeff.tasks.task import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from taskeff.coslow.engines import ConfidenceEngine

Status = Literal["awaiting_labels", "measure", "measured", "failed"]


@dataclass(frozen=True)
class Outcome:
    """How far a data set came; `reason` says what is missing or wrong, `measure` that an actor that
    holds the model has to take its gradients."""

    name: str
    status: Status
    reason: str = ""


@dataclass(frozen=True)
class Scored:
    """So many more rows of a data set have a confidence, or a reason for having none."""

    name: str
    rows: int


@dataclass(frozen=True)
class State:
    """An outcome with what it rests on, where that is there."""

    outcome: Outcome
    selection: Mapping[str, Any] | None = None
    examples: Sequence[Example] | None = None


def state_of(data: DataSet, tokenizer: PreTrainedTokenizerBase | None = None) -> State:
    """How far a data set with a scored pool is: its examples are drawn and labels looked for.

    Without a tokenizer nothing is drawn: a data set that is not drawn yet is one to measure.
    """
    try:
        selection = drawn(data) if tokenizer is None else draw(data, tokenizer)
    except TaskeffError as error:
        return State(Outcome(data.name, "failed", str(error)))
    if selection is None:
        return State(Outcome(data.name, "measure"))
    examples = labelled(data.folder, selection, data.labels)
    if isinstance(examples, Waiting):
        return State(Outcome(data.name, "awaiting_labels", examples.reason), selection)
    result = data.folder.find_json({data.name: (RESULT,)}, check_result).get(data.name)
    done = result is not None and result.get("inputs") == inputs_of(selection, examples)
    return State(Outcome(data.name, "measured" if done else "measure"), selection, examples)


class Worker:
    """Takes data sets as far as they go, shard by shard, with an engine that is loaded once.

    Args:
        gradients: whether to take gradients where the engine holds a model.
    """

    def __init__(
        self,
        engine: ConfidenceEngine,
        tokenizer: PreTrainedTokenizerBase,
        *,
        gradients: bool = True,
    ):
        self.engine, self.tokenizer = engine, tokenizer
        self._gradients = gradients

    def score(self, data: DataSet, shard: Shard) -> None:
        """Score and publish a shard."""
        publish_shard(self.engine, shard, data.folder)

    def finish(self, data: DataSet) -> Outcome | None:
        """Draw, look for labels and take gradients, once every shard is there; None before."""
        if scored_pool(data) is None:
            return None
        found, model = state_of(data, self.tokenizer), self.engine.model
        if found.outcome.status != "measure" or model is None or not self._gradients:
            return found.outcome
        assert found.selection is not None and found.examples is not None
        try:
            measure(data.folder, found.selection, found.examples, model, self.tokenizer)
        except TaskeffError as error:
            return Outcome(data.name, "failed", str(error))
        return Outcome(data.name, "measured")

    def run(self, data: DataSet) -> Iterator[Scored | Outcome]:
        """The whole way of one data set in this process; the last thing given is its outcome."""
        try:
            if scored_pool(data) is None:
                for shard in shards_to_score(data, self.tokenizer):
                    self.score(data, shard)
                    yield Scored(data.name, len(shard.indices))
        except TaskeffError as error:
            yield Outcome(data.name, "failed", str(error))
            return
        found = self.finish(data)
        yield found or Outcome(data.name, "failed", "its shards are not all there; run again")
