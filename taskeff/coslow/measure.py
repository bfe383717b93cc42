"""One labelled task's CoS-Low and its controls: confidence, selection, gradients, statistic."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
from transformers import PreTrainedModel

from taskeff.config import CosLowConfig, ModelConfig, RunConfig
from taskeff.coslow.confidence import score_confidence
from taskeff.coslow.gradients import Gram, LoRA, gradient_gram
from taskeff.coslow.linears import target_names
from taskeff.coslow.select import select
from taskeff.coslow.statistic import coslow, few
from taskeff.models import attention_choice, load_architecture, skeleton
from taskeff.storage import Store, digest
from taskeff.tasks.prompts import Prompter
from taskeff.tasks.task import Example, Task

SCHEMA = 1


def signal_hash(config: RunConfig, data_hash: str, identity: Mapping[str, Any]) -> str:
    """A digest of everything that decides a task's CoS-Low but the hardware."""
    return digest(
        {
            "schema": SCHEMA,
            "data": data_hash,
            "model": dict(identity),
            "dtype": config.model.dtype,
            "coslow": config.coslow.deciding(),
            "tasks_seed": config.tasks.seed,
        }
    )


def fingerprint(
    identity: Mapping[str, Any],
    model: ModelConfig,
    settings: CosLowConfig,
) -> dict[str, Any]:
    """What CoS-Low is measured with; a new task's must agree with its family's.

    Args:
        identity: see `taskeff.models.family_identity`.

    Raises:
        ModelError: the model's `config.json` cannot be read, or it has no linears so named.
    """
    linears = target_names(skeleton(load_architecture(model)), settings.targets)
    return {
        "model": identity["model"],
        "revision": identity["revision"],
        "template_hash": identity["chat_template"],
        "lora_rank": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_targets": linears,
        "lora_seed": settings.seed,
        "n_examples": settings.n_examples,
        "quantile": settings.quantile,
        "confidence_metric": settings.confidence_metric,
        "dtype": model.dtype,
        "attention": attention_choice(model.attn),
        "versions": {name: version(name) for name in ("torch", "transformers")},
    }


def measure_signal(
    model: PreTrainedModel, task: Task, prompter: Prompter, config: RunConfig, folder: Store
) -> dict[str, Any]:
    """Measure and publish one task's CoS-Low; `result.json` is written last.

    The random-example control takes as many examples from the whole pool; it costs a second Gram
    matrix and tells whether low confidence is what matters.
    """
    settings = config.coslow
    pool = task.pool(settings.pool_cap, settings.seed)
    confidences = score_confidence(
        model,
        [prompter.prompt_ids(example.text) for example in pool],
        stop_ids=prompter.stop_ids(),
        max_new_tokens=min(settings.max_new_tokens, task.spec.max_new_tokens),
        metric=settings.confidence_metric,
        max_tokens=settings.max_tokens_per_pack,
    )
    values = [confidence.value for confidence in confidences]
    selection = select(
        values, n=settings.n_examples, quantile=settings.quantile, seed=settings.seed
    )
    rng = random.Random(f"{settings.seed}:{task.name}:random")
    control = rng.sample(range(len(pool)), settings.n_examples)
    labelled = {example.id: example for example in task.train}
    chosen = [labelled[pool[i].id] for i in selection.indices]
    low = _gram(model, chosen, prompter, settings)
    random_gram = _gram(model, [labelled[pool[i].id] for i in control], prompter, settings)
    labels = [example.target or "" for example in chosen]
    statistic = coslow(low.cosines, ids=low.ids, labels=labels if few(labels) else None)
    random_statistic = coslow(random_gram.cosines, ids=random_gram.ids)
    known = [value for value in values if value is not None]
    result = {
        "task": task.name,
        "cos_low": statistic.median,
        "cos_low_low": statistic.interval[0],
        "cos_low_high": statistic.interval[1],
        "mean_cosine": statistic.mean,
        "balanced_cosine": statistic.balanced,
        "random_cosine": random_statistic.median,
        "mean_confidence": float(np.mean(known)),
        "gradient_norm": float(np.mean(np.sqrt(np.diag(low.matrix)))),
        "n_pool": len(pool),
        "n_examples": len(selection.indices),
        "n_labels": len(task.spec.doc_to_choice or ()) or None,
        "seed": settings.seed,
    }
    folder.write_table(
        pa.table({"id": [e.id for e in pool], "confidence": pa.array(values, pa.float64())}),
        "confidence.parquet",
    )
    folder.write_json(
        {"low": [pool[i].id for i in selection.indices], "random": [pool[i].id for i in control]},
        "selection.json",
    )
    folder.write_table(cosine_table(low), "cosines.parquet")
    folder.write_json(result, "result.json")
    return result


def _gram(
    model: PreTrainedModel, examples: Sequence[Example], prompter: Prompter, settings: CosLowConfig
) -> Gram:
    return gradient_gram(
        model,
        [prompter.encode_example(example, end_of_turn=False) for example in examples],
        projection=LoRA(settings.rank, settings.alpha, settings.seed),
        targets=settings.targets,
        memory=settings.gradient_memory,
    )


def cosine_table(gram: Gram) -> pa.Table:
    """A row per example: its id, loss, gradient norm, and cosine with example "0", "1", ..."""
    columns: dict[str, Any] = {
        "id": list(gram.ids),
        "loss": gram.losses,
        "norm": np.sqrt(np.diag(gram.matrix)),
    }
    return pa.table(columns | {str(k): column for k, column in enumerate(gram.cosines.T)})
