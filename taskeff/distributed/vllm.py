"""Confidence through vLLM and ray.data.llm: shards fan out to rows and are put together again.

vLLM batches rows of all shards continuously, so rows come back in any order; one collector holds
the shards that are under way and publishes each when its last row is in. What a dead collector
held is scored again by the next run.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray
import ray.data
from ray.data import ActorPoolStrategy

from taskeff.config import CosLowConfig, RankConfig
from taskeff.coslow.candidates import Candidate
from taskeff.coslow.engines import Scored
from taskeff.coslow.shards import Shard, part_table, shard_summary
from taskeff.errors import ConfigError

HEADER = "header"  # the shard without its tokens; travels with its first row


def check(config: RankConfig) -> None:
    """Refuse what vLLM cannot do, before any worker starts.

    Raises:
        ConfigError: vLLM is not installed, or an actor has no whole GPU.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError("scoring.engine vllm needs the extra: pip install 'taskeff[vllm]'")
    if config.scoring.gpus_per_actor < 1 or config.scoring.gpus_per_actor % 1:
        raise ConfigError(
            f"scoring.gpus_per_actor {config.scoring.gpus_per_actor:g}: vllm takes whole GPUs, "
            "at least 1"
        )


def scored(
    stream: ray.data.Dataset,
    config: RankConfig,
    settings: CosLowConfig,
    known: ray.ObjectRef,
) -> ray.data.Dataset:
    """A stream of shards -> a stream of their summaries, the parts published."""
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    scoring, model = config.scoring, config.model
    processor = build_processor(
        vLLMEngineProcessorConfig(
            model_source=model.path,
            engine_kwargs={
                "dtype": model.dtype,
                "revision": model.revision,
                "enable_prefix_caching": True,
                "tensor_parallel_size": int(scoring.gpus_per_actor),
                # Pure greedy decoding: no repetition penalty from the model's own settings.
                "generation_config": "vllm",
                "logprobs_mode": "raw_logprobs",
            },
            batch_size=min(scoring.shard_rows, 256),
            concurrency=scoring.actors,
            should_continue_on_error=True,
            chat_template_stage=False,
            tokenize_stage=False,
            detokenize_stage=False,
        ),
        preprocess=request,
        postprocess=Answer(settings.confidence_metric),
    )
    return processor(stream.flat_map(rows_of)).flat_map(
        Collector,  # type: ignore[arg-type]
        fn_constructor_args=(known,),
        compute=ActorPoolStrategy(size=1),
        num_cpus=scoring.cpus_per_reader,
    )


def rows_of(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row per prompt; a shard without a good row gets one that asks for nothing much."""
    shard = Shard.from_record(record)
    prompts = shard.prompts()
    header = {**shard.to_record(), "tokens": b"", "part": shard.part, "error": record["error"]}
    for position, ids in enumerate(prompts or [[shard.stop_ids[0] if shard.stop_ids else 0]]):
        yield {
            "dataset": shard.dataset,
            "number": shard.number,
            "position": position,
            "n_prompts": len(prompts),
            "stop_ids": shard.stop_ids,
            "max_new_tokens": shard.max_new_tokens,
            "ids": ids,
            HEADER: header if position == 0 else None,
        }


def request(row: dict[str, Any]) -> dict[str, Any]:
    """What the engine is asked: greedy, the chosen tokens' own log-probabilities."""
    return {
        **{key: row[key] for key in ("dataset", "number", "position", "n_prompts", HEADER)},
        "stops": [int(token) for token in row["stop_ids"]],
        "tokenized_prompt": [int(token) for token in row["ids"]],
        "sampling_params": {
            "temperature": 0.0,
            "max_tokens": int(row["max_new_tokens"]),
            "logprobs": 1,
            "stop_token_ids": [int(token) for token in row["stop_ids"]],
            "detokenize": False,
        },
    }


class Answer:
    """An engine's row -> the row's confidence."""

    def __init__(self, metric: str):
        self.metric = metric

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        error = row.get("__inference_error__") or None
        found = Scored(None, error)
        if error is None:
            found = confidence(
                row["generated_tokens"], row["logprobs"], set(row["stops"]), self.metric
            )
        kept = ("dataset", "number", "position", "n_prompts", HEADER)
        return {**{k: row[k] for k in kept}, "value": found.value, "reason": found.reason}


def confidence(
    tokens: Sequence[int],
    logprobs: Sequence[Mapping[Any, Any]],
    stops: set[int],
    metric: str,
) -> Scored:
    """The confidence of one greedy answer, as `taskeff.coslow.confidence` defines it.

    Args:
        logprobs: per token, token id -> `{"logprob": ...}`; the chosen token is among them.
    """
    own: list[float] = []
    for token, given in zip(tokens, logprobs, strict=True):
        if int(token) in stops:
            break
        known = given.get(int(token)) or given[str(int(token))]
        own.append(float(known["logprob"]))
    if not own:
        return Scored(None, "the model ended its turn without an answer")
    if metric == "ppl":
        return Scored(-math.exp(-sum(own) / len(own)))
    return Scored(sum(map(math.exp, own)) / len(own))


class Collector:
    """Puts shards together again and publishes them."""

    def __init__(self, known: Any):
        candidates = ray.get(known) if isinstance(known, ray.ObjectRef) else known
        self.known: dict[str, Candidate] = candidates
        self._headers: dict[tuple[str, int], dict[str, Any]] = {}
        self._found: dict[tuple[str, int], dict[int, Scored]] = {}

    def __call__(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """The shard's summary, once its last row is in; until then nothing."""
        key = str(row["dataset"]), int(row["number"])
        found = self._found.setdefault(key, {})
        found[int(row["position"])] = Scored(row["value"], row["reason"])
        if row[HEADER] is not None:
            self._headers[key] = row[HEADER]
        n_prompts = int(row["n_prompts"])
        if len(found) < max(n_prompts, 1) or key not in self._headers:
            return []
        header = self._headers.pop(key)
        del self._found[key]
        shard, error = Shard.from_record(header), str(header["error"])
        table = part_table(shard, [found[position] for position in range(n_prompts)])
        summary = {**shard_summary(shard, table), "part": str(header["part"]), "error": error}
        if not error:
            self.known[key[0]].folder.write_table(table, summary["part"])
        return [summary]
