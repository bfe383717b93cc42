"""Manifest in, ranked table out: what is missing is measured, then the estimates are made anew."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from taskeff.config import CosLowConfig, ModelConfig
from taskeff.config_file import load_config, overridden, parse_config
from taskeff.coslow.data_set import DataSet, published, scored_pool
from taskeff.coslow.draw import account_of
from taskeff.coslow.engines import engine_of
from taskeff.coslow.fingerprint import fingerprint, settings_of, signal_hash
from taskeff.coslow.pipeline import Outcome, Scored, state_of
from taskeff.coslow.pool import SpecPool
from taskeff.coslow.result import read_result
from taskeff.errors import ConfigError, TaskeffError, redacted
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.fingerprint import compare_fingerprints
from taskeff.estimate.ranking import ordered, ranking_rows
from taskeff.finetune.cells import versions
from taskeff.lease import Lease
from taskeff.models import family_identity, load_tokenizer, named_model
from taskeff.rank_config import RankConfig
from taskeff.report.ranking import write_ranking
from taskeff.run.executor import Measures
from taskeff.run.inline import InProcess
from taskeff.run.progress import say
from taskeff.screen import Screen
from taskeff.storage import Store
from taskeff.tasks.manifest import Entry, Manifest, load_manifest

THREADS = 16  # storage calls at once: each is a round trip on an object store
LEASE_SECONDS = 120.0
ESTIMATES_PER_TASK = 32


def ranking_config(
    values: Mapping[str, Any], overrides: Sequence[str] = (), *, dtype: str | None = None
) -> RankConfig:
    """A ranking of plain values: `manifest`, `model`, `family`, `out`, and what else it sets.

    Args:
        values: by the names of `RankConfig`; the model may be its id or folder.
        overrides: key.sub=value, as for a file.
        dtype: of a model given by its path; default the family's, else as it is stored.

    Raises:
        TaskeffError: one of the four is missing, no such family, or a value is wrong.
    """
    missing = [name for name in ("manifest", "model", "family", "out") if not values.get(name)]
    if missing:
        options = ", ".join(f"--{name}" for name in missing)
        raise ConfigError(f"give {options}, or a configuration with -c")
    model = values["model"]
    if isinstance(model, str | os.PathLike | ModelConfig):
        measured = Calibration.load(values["family"]).fingerprint
        model = named_model(model, dtype, measured).model_dump()
    places = {name: str(values[name]) for name in ("manifest", "family", "out")}
    given = {**values, **places, "model": model}
    return parse_config(
        overridden(given, list(overrides), "the options"), "the options", RankConfig
    )


def rank(
    config: RankConfig | Mapping[str, Any] | str | Path,
    executor: Measures | None = None,
    console: Console | None = None,
) -> list[dict[str, Any]]:
    """Rank the manifest's data sets by the labels they will need.

    What an earlier run published is not measured again. A data set that fails, or waits for
    labels, is in the table with its status and the reason; the others go on.

    Args:
        config: a YAML file, or ``{"manifest": ..., "model": ..., "family": ..., "out": ...}`` with
            what else `RankConfig` has, or a `RankConfig`.
        executor: `InProcess()`, the default, or `OnRay()`.
        console: where progress is told; default standard output.

    Returns:
        The table's rows, see `taskeff.estimate.ranking.ranking_rows`; also written to
        `config.out` as ranking.parquet, ranking.csv and ranking.html.

    Raises:
        TaskeffError: nothing can be ranked: a bad manifest, model or storage, a family that was
            calibrated with other settings, another ranking at work in the same place. Said before
            any worker starts.

    Examples:
        >>> rows = taskeff.rank(
        ...     {
        ...         "manifest": "manifest.yaml",
        ...         "model": "model",
        ...         "family": "family.json",
        ...         "out": "ranking",
        ...     }
        ... )
        CoS-Low: 1 of 1 data sets to measure
        ...
        >>> [(row["rank"], row["name"]) for row in rows]
        [(1, 'kinds')]
    """
    console, executor = console or Screen(), executor or InProcess()
    if isinstance(config, Mapping):
        config = ranking_config(config)
    elif not isinstance(config, RankConfig):
        config = load_config(config, schema=RankConfig)
    started = time.monotonic()
    run = _prepared(config, console)
    with Lease(run.store, LEASE_SECONDS) as lease, executor:
        _measure(run, executor, console)
        lease.check()
        rows = ordered(_estimated(run, executor))
        _publish_settings(run, time.monotonic() - started)
        page = write_ranking(run.store, rows, run.calibration, config.targets)
    counts = Counter(row["status"] for row in rows)
    told = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in counts.most_common())
    console.print(f"{len(rows)} data sets: {told}", highlight=False)
    for warning in run.calibration.warnings:
        say(console, "warning:", warning)
    console.print(f"ranking: {page}", soft_wrap=True, highlight=False)
    return rows


@dataclass
class _Run:
    """A ranking under way."""

    config: RankConfig
    settings: CosLowConfig
    calibration: Calibration
    fingerprint: Mapping[str, Any]
    store: Store
    data_sets: list[DataSet] = field(default_factory=list)
    prices: dict[str, float | None] = field(default_factory=dict)
    unusable: list[dict[str, Any]] = field(default_factory=list)
    states: dict[str, Outcome] = field(default_factory=dict)


def _prepared(config: RankConfig, console: Console) -> _Run:
    """Everything that can be checked and listed before a worker starts."""
    engine_of(config.scoring)
    manifest = load_manifest(config.manifest, strict=config.strict, allow_local=config.allow_local)
    calibration = Calibration.load(config.family)
    settings = settings_of(calibration.fingerprint)
    if config.coslow is not None:
        settings = settings.model_copy(update=config.coslow.model_dump(exclude_unset=True))
    store = Store(config.out)
    store.check_writable()
    identity = family_identity(config.model, load_tokenizer(config.model))
    measured = fingerprint(identity, config.model, settings)
    for warning in compare_fingerprints(calibration.fingerprint, measured, calibration.family):
        say(console, "warning:", warning)
    run = _Run(config, settings, calibration, measured, store)
    for problem in manifest.problems:
        say(console, f"{problem.where} is skipped:", problem.reason)
        name = problem.name or problem.where
        run.unusable.append(_unusable(name, f"{problem.where}: {problem.reason}"))
    _locate(run, manifest, identity)
    return run


def _locate(run: _Run, manifest: Manifest, identity: Mapping[str, Any]) -> None:
    config = run.config

    def data_set(entry: Entry) -> DataSet:
        pool = SpecPool(entry.spec, config.seed, run.settings, labelled=entry.labelled)
        hash_ = signal_hash(
            pool.about.decided_by,
            identity,
            config.model.dtype,
            run.settings,
            tasks_seed=config.seed,
            shard_rows=config.scoring.shard_rows,
        )
        return DataSet(
            name=entry.name,
            pool=pool,
            folder=run.store.child("coslow", f"task={entry.name}", hash_),
            settings=run.settings,
            made_with=hash_,
            fingerprint=run.fingerprint,
            shard_rows=config.scoring.shard_rows,
            labels=entry.labels,
        )

    def unreachable(data: DataSet) -> str | None:
        try:
            data.pool.stamp()
        except TaskeffError as error:
            return str(error)
        return None

    found = [data_set(entry) for entry in manifest.entries]
    for entry, data, reason in zip(manifest.entries, found, _mapped(unreachable, found)):
        run.prices[entry.name] = config.label_price if entry.price is None else entry.price
        if reason is None:
            run.data_sets.append(data)
        else:
            run.unusable.append(_unusable(entry.name, reason))


def _unusable(name: str, reason: str) -> dict[str, Any]:
    return {"name": name, "status": "unusable", "reason": reason}


def _measure(run: _Run, executor: Measures, console: Console) -> None:
    """Take every data set as far as it goes; what is there already costs a few small files."""
    known = _mapped(_known, run.data_sets)
    run.states = {o.name: o for o in known if o.status not in ("measure", "failed")}
    left = [data for data in run.data_sets if data.name not in run.states]
    total, done, rows = len(run.data_sets), len(run.states), 0
    console.print(f"CoS-Low: {len(left)} of {total} data sets to measure")
    for outcome in run.states.values():
        _report(console, outcome, "")
    if not left:
        return
    started = time.monotonic()
    config = run.config
    folders = {data.name: data.folder for data in left}
    for event in executor.data_sets(left, config.model, run.settings, config.scoring):
        if isinstance(event, Scored):
            rows += event.rows
            continue
        done += 1
        run.states[event.name] = event
        pace = rows / (time.monotonic() - started)
        _report(console, event, f"  [{done:>3}/{total}] {event.name:<28} {pace:.0f} rows/s")
        if (found := published(folders[event.name], "selection.json")) is not None:
            for line in account_of(found).lines("rows"):
                said = f"          {line}"
                console.print(said, highlight=False, soft_wrap=True, markup=False)


def _known(data: DataSet) -> Outcome:
    if scored_pool(data) is None:
        return Outcome(data.name, "measure")
    return state_of(data).outcome


def _report(console: Console, outcome: Outcome, line: str) -> None:
    if outcome.status in ("failed", "awaiting_labels"):
        say(console, f"{outcome.name}: {outcome.status.replace('_', ' ')}:", outcome.reason)
    elif line:
        console.print(line, highlight=False, soft_wrap=True)


def _estimated(run: _Run, executor: Measures) -> list[dict[str, Any]]:
    records = [*_mapped(lambda data: _record(run, data), run.data_sets), *run.unusable]
    shared = {
        "calibration": run.calibration,
        "targets": run.config.targets,
        "fingerprint": run.fingerprint,
    }
    if len(records) <= ESTIMATES_PER_TASK:
        return ranking_rows(records, **shared)
    parts = [
        records[start : start + ESTIMATES_PER_TASK]
        for start in range(0, len(records), ESTIMATES_PER_TASK)
    ]
    return [row for rows in executor.mapped(ranking_rows, parts, **shared) for row in rows]


def _record(run: _Run, data: DataSet) -> dict[str, Any]:
    """What `ranking_rows` takes of a data set: counts, and sentences that a reader should know."""
    state = run.states[data.name]
    found: dict[str, Any] = {"name": data.name, "status": state.status, "reason": state.reason}
    found |= {"price": run.prices[data.name], "warnings": []}
    selection = published(data.folder, "selection.json")
    if state.status == "failed" or selection is None:
        return found
    pool = selection["pool"]
    found |= {
        "rows_in": pool["rows_in"],
        "rows": pool["rows"],
        "unscored": selection["unscored"],
        "duplicates": pool["duplicates"],
        "mean_confidence": selection["mean_confidence"],
        "warnings": [*_pool_warnings(selection), *_draw_warnings(selection, run.settings)],
    }
    if state.status == "measured":
        found["result"] = read_result(data.folder, data.name)
        found["warnings"] += _example_warnings(found["result"])
    return found


def _pool_warnings(selection: Mapping[str, Any]) -> list[str]:
    pool, found = selection["pool"], list[str]()
    if selection["unscored"]:
        first = f": {selection['problems'][0]}" if selection["problems"] else ""
        found.append(f"{selection['unscored']} of {pool['rows']} rows have no confidence{first}")
    total = pool["rows"] + pool["duplicates"]
    if pool["duplicates"] > 0.01 * total:
        found.append(f"{pool['duplicates']} of {total} rows repeat another and were left out")
    found += account_of(selection).escape_notes
    return [*found, pool["note"]] if pool["note"] else found


def _draw_warnings(selection: Mapping[str, Any], settings: CosLowConfig) -> list[str]:
    share = selection["candidates"] / selection["n_scored"]
    if settings.strategy == "random" or share <= 1.5 * settings.quantile:
        return []
    return [
        f"a small pool: the examples are from its least confident {100 * share:.0f} %, not "
        f"{100 * settings.quantile:g} %"
    ]


def _example_warnings(result: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    if result["excluded"]:
        found.append(f"{len(result['excluded'])} examples have no gradient and were left out")
    if result["duplicates"]:
        found.append(f"{len(result['duplicates'])} pairs of examples have the same gradient")
    if result["labels_seen"] == 1:
        found.append("all examples have one and the same label")
    return found


def _publish_settings(run: _Run, seconds: float) -> None:
    # With the family's settings written out, so that the file alone says what was done.
    ran = run.config.model_copy(update={"coslow": run.settings})
    config = yaml.safe_dump(redacted(ran.model_dump(mode="json")), sort_keys=False)
    run.store.write_bytes(config.encode(), "config.yaml")
    run.store.write_json(
        {
            "fingerprint": dict(run.fingerprint),
            "family": run.calibration.family,
            "seed": run.config.seed,
            "versions": versions(),
            "seconds": seconds,
        },
        "run.json",
    )


def _mapped(call: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(call, items))
