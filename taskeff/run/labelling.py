"""A task of the user's own in two steps: select what to label, score it once labelled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

from taskeff.config import SHARD_ROWS, CosLowConfig, ModelConfig, ScoringConfig
from taskeff.coslow.data_set import POOL, DataSet
from taskeff.coslow.draw import Waiting, account_of, labelled
from taskeff.coslow.engines import BuiltinEngine, in_this_process
from taskeff.coslow.fingerprint import fingerprint, settings_of, signal_hash
from taskeff.coslow.handoff import Form, hand_off
from taskeff.coslow.pilot import measure_pilot, rows_of
from taskeff.coslow.pipeline import Scored, Worker
from taskeff.coslow.pool import Pool, RenderedPool, SpecPool
from taskeff.coslow.result import RESULT, ScoredDataSet, measure
from taskeff.coslow.selection import SELECTION, read_selection
from taskeff.errors import ConfigError, DataError, ModelError
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.fingerprint import compare_fingerprints
from taskeff.models import family_identity, load_model, load_tokenizer, named_model
from taskeff.storage import Store
from taskeff.tasks.task import load_spec

Progress = Callable[[int], None]
"""Called with the rows scored so far."""


def select(
    model: ModelConfig | str | Path,
    task: str | Path | None,
    out: str | Path,
    settings: CosLowConfig | Mapping[str, Any] | None = None,
    *,
    pool: str | Path | None = None,
    family: str | Path | None = None,
    dtype: str | None = None,
    form: Form = "jsonl",
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Choose the pool rows to label; write the files to label and `selection.json` to `out`.

    A run that was stopped goes on with the next shard.

    Args:
        model: a Hugging Face id or folder, or a `ModelConfig`.
        task: a bundled task's name or a task file; its training split is the pool, no label read.
        out: folder or URI; `score` goes on from there.
        settings: those of `CosLowConfig` to set, ``{"n_examples": 64}``; what is not given is as
            the family was measured, else the default.
        pool: instead of a task, a file of rendered prompts; see `RenderedPool`.
        family: a calibration that the result is to be compared with: what it would refuse is
            refused now.
        dtype: of a model given by its path: float32, bfloat16 or float16; default the family's,
            else as it is stored.
        form: what the files to label are written for.
        seed: of a bundled task, and of a task's split into training and test rows.

    Returns:
        `selection.json`: `rows` are the records handed out (id, text, text_hash, confidence,
        choices, label), `pool`, `unscored` and `problems` say what became of the others.

    Raises:
        TaskeffError: a bad task, pool or model, or an `out` that cannot be written or holds files
            that were handed out before.

    Examples:
        >>> settings = {"n_examples": 8, "pool_cap": 40, "max_new_tokens": 4}
        >>> found = taskeff.select("model", "name_gender", "selected", settings)
        >>> len(found["rows"]), found["pool"]["rows"]
        (8, 40)
    """
    stated = Calibration.load(family).fingerprint if family else {}
    model = named_model(model, dtype, stated)
    if not isinstance(settings, CosLowConfig):
        settings = settings_of(stated, settings)
    if (task is None) == (pool is None):
        raise ConfigError(
            "give either a task (--task), a file of rows (--data), or a file of rendered prompts "
            "(--pool)"
        )
    rows: Pool = (
        SpecPool(load_spec(task), seed, settings, labelled=False)
        if task is not None
        else RenderedPool(str(pool), settings)
    )
    store = _fresh(out, form)
    tokenizer = load_tokenizer(model)
    identity = family_identity(model, tokenizer)
    measured = fingerprint(identity, model, settings)
    about = rows.about
    if about.rendered:  # by which template is not known
        del measured["template_hash"]
    if family is not None:
        compare_fingerprints(stated, measured, str(family))
    data = DataSet(
        name=about.name,
        pool=rows,
        folder=store,
        settings=settings,
        made_with=signal_hash(about.decided_by, identity, model.dtype, settings, tasks_seed=seed),
        fingerprint=measured,
        shard_rows=SHARD_ROWS,
        form=form,
    )
    engine = BuiltinEngine(model, settings, in_this_process(ScoringConfig()))
    done = 0
    for event in Worker(engine, tokenizer, gradients=False).run(data):
        if isinstance(event, Scored):
            done += event.rows
            if progress is not None:
                progress(done)
        elif event.status == "failed":
            raise DataError(event.reason)
    return read_selection(store)


def pool_lines(selection: Mapping[str, Any]) -> list[str]:
    """What became of the pool's rows, a line each: read, used, left out and why, drawn."""
    note = selection["pool"]["note"]
    low, tenth, half, ninth, high = selection["confidence"].values()
    drawn = [row["confidence"] for row in selection["rows"]]
    return [
        *account_of(selection).lines("pool"),
        *([f"note: {note}"] if note else []),
        f"confidence: {low:.2f} to {high:.2f}, mean {selection['mean_confidence']:.2f}; a tenth of "
        f"the rows below {tenth:.2f}, half below {half:.2f}, a tenth above {ninth:.2f}",
        f"drawn: {len(drawn)} of {selection['candidates']} candidates, of confidence "
        f"{min(drawn):.2f} to {max(drawn):.2f}",
    ]


def _fresh(out: str | Path, form: Form) -> Store:
    """A writable store without an earlier selection: its files may hold labels by now.

    Of the same form a call that was killed may have left one; the draw looks what is in it.
    """
    store = Store(str(out))
    store.check_writable()
    names = {name for one in get_args(Form) for name in hand_off([], one, None)}
    if store.exists(POOL):
        names -= hand_off([], form, None).keys()
    for name in (SELECTION, *sorted(names)):
        if store.exists(name):
            raise ConfigError(
                f"{store.path(name)} is there already and may hold labels or belong to them; "
                "give another folder or remove it"
            )
    return store


def score(
    model: ModelConfig | str | Path,
    out: str | Path,
    labels: str | Path | None = None,
    *,
    dtype: str | None = None,
    kernel: bool = False,
) -> ScoredDataSet:
    """CoS-Low of the examples that `select` handed out to `out`, now labelled.

    Args:
        model: the one that `select` used: its id or folder, or a `ModelConfig`.
        out: the folder that `select` wrote.
        labels: the filled file, in any of the formats; default the one that `select` wrote.
        dtype: of a model given by its path; default what `select` loaded it in.
        kernel: add `kernel`, a `KernelPilot`: what a fine-tune on these labels would score. It
            takes the gradients of every answer of every row.

    Returns:
        `coslow.json`: cos_low (the median), mean_cosine, balanced_cosine (the median with labels
        weighted equally; None where they are many), the intervals of the first two, ids of
        excluded and pairs of equal examples, fingerprint. The N x N cosines, losses and gradient
        norms go to `cosines.parquet`.

    Raises:
        TaskeffError: labels missing or changed, another model than `select` used, or a kernel
            asked for where the task lists no answers or the labels are too few or all the same.

    Examples:
        >>> found = taskeff.score("model", "labelled")
        >>> found
        <ScoredDataSet: name_gender, CoS-Low ...>
        >>> taskeff.predict("family.json", scored=found).cos_low == found["cos_low"]
        True
    """
    store = Store(str(out))
    selection = read_selection(store)
    model = named_model(model, dtype, selection["fingerprint"])
    examples = labelled(store, selection, None if labels is None else str(labels))
    if isinstance(examples, Waiting):
        raise DataError(examples.reason)
    tokenizer = load_tokenizer(model)
    _check_model(selection["fingerprint"], family_identity(model, tokenizer))
    selection["fingerprint"]["dtype"] = model.dtype
    loaded = load_model(model)
    rows = rows_of(selection, examples, loaded.config, tokenizer) if kernel else None
    result = measure(store, selection, examples, loaded, tokenizer)
    if rows is not None:
        result["kernel"] = measure_pilot(selection, rows, loaded).to_dict()
        store.write_json(result, RESULT)
    return ScoredDataSet(result)


def _check_model(selected: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    now = {**identity, "template_hash": identity["chat_template"]}
    for name in ("model", "revision", "template_hash"):
        if name in selected and selected[name] != now[name]:
            raise ModelError(
                f"these rows were selected with {name} {selected[name]!r}, this is {now[name]!r}; "
                "score with the model that `select` used, or select again"
            )
