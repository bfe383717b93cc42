"""A task of the user's own in two steps: select what to label, score it once labelled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from taskeff.config import CosLowConfig, ModelConfig
from taskeff.coslow.annotate import read_labels, to_annotate, write_lines
from taskeff.coslow.confidence import score_confidence
from taskeff.coslow.gradients import LoRA, gradient_gram
from taskeff.coslow.measure import fingerprint
from taskeff.coslow.select import Strategy
from taskeff.coslow.select import select as draw
from taskeff.coslow.statistic import coslow
from taskeff.models import family_identity, load_model, load_tokenizer
from taskeff.store import Store
from taskeff.tasks.prompts import Prompter
from taskeff.tasks.task import load_pool, load_spec


def select(
    model: ModelConfig,
    task: str | Path,
    out: str | Path,
    settings: CosLowConfig | None = None,
    *,
    strategy: Strategy = "low",
) -> list[dict[str, Any]]:
    """Choose the pool rows to label and write `to_annotate.jsonl` and `selection.json` to `out`.

    Args:
        task: a bundled task's name or a task file; its training split is the pool, no label read.

    Raises:
        TaskeffError: a bad task, pool or model, or an `out` that cannot be written.
    """
    settings = settings or CosLowConfig()
    spec = load_spec(task)
    store = Store(str(out))
    store.check_writable()
    pool = load_pool(spec, settings.seed, settings.pool_cap)
    tokenizer = load_tokenizer(model)
    prompter = Prompter(tokenizer, spec.description)
    confidences = score_confidence(
        load_model(model),
        [prompter.prompt_ids(example.text) for example in pool],
        stop_ids=prompter.stop_ids(),
        max_new_tokens=min(settings.max_new_tokens, spec.max_new_tokens),
        metric=settings.confidence_metric,
        max_tokens=settings.max_tokens_per_pack,
    )
    values = [confidence.value for confidence in confidences]
    chosen = draw(
        values,
        n=settings.n_examples,
        quantile=settings.quantile,
        seed=settings.seed,
        strategy=strategy,
    )
    records = to_annotate(
        [pool[i] for i in chosen.indices], [values[i] for i in chosen.indices], spec.doc_to_choice
    )
    store.write_bytes(write_lines(records), "to_annotate.jsonl")
    store.write_json(
        {
            "task": spec.task,
            "description": spec.description,
            "strategy": strategy,
            "pool": len(pool),
            "candidates": chosen.candidates,
            "settings": settings.model_dump(),
            "fingerprint": fingerprint(family_identity(model, tokenizer), model.dtype, settings),
            "rows": records,
        },
        "selection.json",
    )
    return records


def score(model: ModelConfig, out: str | Path, labels: str | Path | None = None) -> dict[str, Any]:
    """CoS-Low of the examples that `select` handed out to `out`, now labelled.

    Args:
        labels: the filled file; default `to_annotate.jsonl` in `out`.

    Returns:
        cos_low (the median), mean_cosine, interval, fingerprint; also written to `coslow.json`.

    Raises:
        TaskeffError: labels missing or changed, or another model than `select` used.
    """
    store = Store(str(out))
    chosen = store.read_json("selection.json")
    path = Path(labels) if labels else Path(store.path("to_annotate.jsonl"))
    examples = read_labels(path, chosen["rows"])
    settings = CosLowConfig.model_validate(chosen["settings"])
    tokenizer = load_tokenizer(model)
    prompter = Prompter(tokenizer, chosen["description"])
    gram = gradient_gram(
        load_model(model),
        [prompter.encode_example(example, end_of_turn=False) for example in examples],
        projection=LoRA(settings.rank, settings.alpha, settings.seed),
    )
    found = coslow(gram.cosines)
    result = {
        "task": chosen["task"],
        "cos_low": found.median,
        "mean_cosine": found.mean,
        "interval": list(found.interval),
        "level": found.level,
        "n_examples": len(examples),
        "fingerprint": fingerprint(family_identity(model, tokenizer), model.dtype, settings),
    }
    store.write_json(result, "coslow.json")
    return result
