"""Manifest in, ranked table out: what is missing is measured, then the estimates are made anew."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

from taskeff.config import CosLowConfig, RankConfig
from taskeff.coslow.candidates import (
    Candidate,
    candidate_hash,
    choose,
    publish_pool,
    scored_pool,
)
from taskeff.coslow.engines import BuiltinEngine, EngineFactory
from taskeff.coslow.facts import facts
from taskeff.coslow.measure import fingerprint
from taskeff.distributed.session import ray_session
from taskeff.distributed.streams import (
    ESTIMATES_PER_TASK,
    bounded,
    check_placeable,
    choose_examples,
    estimate,
    measure_gradients,
    score_pools,
)
from taskeff.distributed.vllm import check
from taskeff.errors import TaskeffError
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.fingerprint import compare_fingerprints
from taskeff.estimate.ranking import estimate_rows, ordered
from taskeff.finetune.cells import versions
from taskeff.models import family_identity, load_tokenizer
from taskeff.report.ranking import write_ranking
from taskeff.storage import Store, redact
from taskeff.tasks.manifest import Entry, Manifest, load_manifest
from taskeff.tasks.rows import source_stamp

THREADS = 16  # storage calls at once: each is a round trip on an object store


def rank(
    config: RankConfig, *, engine: EngineFactory = BuiltinEngine, console: Console | None = None
) -> list[dict[str, Any]]:
    """Rank the manifest's data sets by the labels they will need.

    What an earlier run published is not measured again. A data set that fails, or waits for
    labels, is in the table with its status and the reason; the others go on.

    Args:
        engine: makes what scores confidence in each actor.

    Returns:
        The table's rows, see `taskeff.estimate.ranking.estimate_rows`; also written to
        `config.out` as ranking.parquet, ranking.csv and ranking.html.

    Raises:
        TaskeffError: nothing can be ranked: a bad manifest, model or storage, or a family that
            was calibrated with other settings. Said before any worker starts.
    """
    console = console or Console()
    started = time.monotonic()
    with ExitStack() as stack:
        run = _prepared(config, console, stack)
        _score(run, engine, console)
        _choose(run, console)
        _measure(run, console)
        rows = ordered(_estimated(run))
    _publish_settings(run, time.monotonic() - started)
    page = write_ranking(run.store, rows, run.calibration, config.targets)
    counts = Counter(row["status"] for row in rows)
    told = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in counts.most_common())
    console.print(f"{len(rows)} data sets: {told}", highlight=False)
    console.print(f"ranking: {page}", soft_wrap=True, highlight=False)
    return rows


def _publish_settings(run: _Run, seconds: float) -> None:
    config = yaml.safe_dump(run.config.model_dump(mode="json"), sort_keys=False)
    run.store.write_bytes(redact(config).encode(), "config.yaml")
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


@dataclass
class _Run:
    """A ranking under way."""

    config: RankConfig
    settings: CosLowConfig
    calibration: Calibration
    fingerprint: Mapping[str, Any]
    store: Store
    candidates: list[Candidate]
    unusable: list[dict[str, Any]]
    stack: ExitStack
    connected: bool = False
    pools: dict[str, dict[str, Any]] = field(default_factory=dict)
    states: dict[str, dict[str, Any]] = field(default_factory=dict)

    def connect(self) -> None:
        """Start or join Ray, once, and only where something is left to do."""
        if not self.connected:
            self.stack.enter_context(ray_session())
            check_placeable(self.config.scoring)
            self.stack.enter_context(bounded(self.config.scoring))
            self.connected = True

    def fail(self, name: str, reason: str) -> None:
        """The data set's status until the next run."""
        self.states[name] = {"status": "failed", "reason": reason}

    def record(self, candidate: Candidate) -> dict[str, Any]:
        """What `estimate_rows` takes of a candidate."""
        price = candidate.entry.price
        return {
            "name": candidate.name,
            **self.states[candidate.name],
            "price": self.config.label_price if price is None else price,
            **facts(
                candidate,
                self.pools.get(candidate.name),
                self.states[candidate.name]["status"],
                self.settings,
            ),
        }


def _prepared(config: RankConfig, console: Console, stack: ExitStack) -> _Run:
    """Everything that can be checked and listed before a worker starts."""
    if config.scoring.engine == "vllm":
        check(config)
    manifest = load_manifest(config.manifest, strict=config.strict)
    calibration = Calibration.load(config.family)
    settings = config.coslow or as_calibrated(calibration)
    store = Store(config.out)
    store.check_writable()
    identity = family_identity(config.model, load_tokenizer(config.model))
    measured = fingerprint(identity, config.model, settings)
    for warning in compare_fingerprints(calibration.fingerprint, measured, calibration.family):
        console.print(Text.assemble(("warning:", "yellow"), f" {warning}"), soft_wrap=True)
    unusable = [
        _unusable(problem.name or problem.where, problem.where + ": " + problem.reason)
        for problem in manifest.problems
    ]
    run = _Run(config, settings, calibration, measured, store, [], unusable, stack)
    for problem in manifest.problems:
        _say_failed(console, f"{problem.where} is skipped", problem.reason)
    _candidates(run, manifest, identity)
    return run


def _candidates(run: _Run, manifest: Manifest, identity: Mapping[str, Any]) -> None:
    config = run.config

    def locate(entry: Entry) -> Candidate | str:
        hash_ = candidate_hash(
            entry.spec,
            identity,
            config.model.dtype,
            run.settings,
            seed=config.seed,
            rows_per_shard=config.scoring.shard_rows,
        )
        folder = run.store.child("datasets", f"name={entry.name}", hash_)
        try:
            return Candidate(entry, folder, tuple(source_stamp(entry.spec)), config.seed)
        except TaskeffError as error:
            return str(error)

    for entry, found in zip(manifest.entries, _mapped(locate, manifest.entries), strict=True):
        if isinstance(found, str):
            run.unusable.append(_unusable(entry.name, found))
        else:
            run.candidates.append(found)


def _unusable(name: str, reason: str) -> dict[str, Any]:
    return {"name": name, "status": "unusable", "reason": reason}


def as_calibrated(calibration: Calibration) -> CosLowConfig:
    """The settings that the family's fingerprint states; the defaults for what it does not."""
    names = {
        "n_examples": "n_examples",
        "quantile": "quantile",
        "confidence_metric": "confidence_metric",
        "lora_rank": "rank",
        "lora_alpha": "alpha",
        "lora_targets": "targets",
        "lora_seed": "seed",
    }
    stated = calibration.fingerprint
    return CosLowConfig.model_validate(
        {field: stated[name] for name, field in names.items() if stated.get(name) is not None}
    )


def _score(run: _Run, engine: EngineFactory, console: Console) -> None:
    """Score the pools that are not scored yet, marking each as its last shard comes in."""
    found = _mapped(scored_pool, run.candidates)
    run.pools = {c.name: pool for c, pool in zip(run.candidates, found) if pool is not None}
    missing = {c.name: c for c in run.candidates if c.name not in run.pools}
    done = len(run.pools)
    console.print(f"confidence: {len(missing)} of {len(run.candidates)} pools to score")
    if not missing:
        return
    shards: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in missing}
    rows, started = 0, time.monotonic()
    run.connect()
    for shard in score_pools(list(missing.values()), run.config, run.settings, engine):
        name = shard["dataset"]
        if shard["error"]:
            run.fail(name, shard["error"])
            _say_failed(console, f"{name} failed", shard["error"])
            continue
        rows += shard["rows"]
        of_pool = shards[name]
        of_pool[shard["number"]] = shard
        last = next((n for n, one in of_pool.items() if one["last"]), None)
        if last is None or len(of_pool) <= last:
            continue
        run.pools[name] = pool = publish_pool(missing[name], [of_pool[n] for n in range(last + 1)])
        done += 1
        pace = rows / (time.monotonic() - started)
        console.print(
            f"  [{done:>3}/{len(run.candidates)}] {name:<28} {pool['rows']:>7} rows"
            + (f", {pool['unscored']} unscored" if pool["unscored"] else "")
            + f"   {pace:.0f} rows/s",
            highlight=False,
            soft_wrap=True,
        )
        for problem in pool["problems"][:3]:
            console.print(f"          {problem}", highlight=False, soft_wrap=True, markup=False)
    for name in missing:
        if name not in run.pools and name not in run.states:
            run.fail(name, f"{len(shards[name])} shards came back, not all; run again")


def _choose(run: _Run, console: Console) -> None:
    """Draw the examples of every scored pool and look for their labels."""
    scored = [c for c in run.candidates if c.name in run.pools]
    drawn = _mapped(lambda one: one.folder.exists("selection.json"), scored)
    fresh = [c for c, is_drawn in zip(scored, drawn, strict=True) if not is_drawn]
    states: list[dict[str, Any]] = []
    if fresh:
        run.connect()
        states += choose_examples(fresh, run.config, run.settings)
    # What is drawn already takes a small file or two to look up: not worth a worker.
    old = [c for c, is_drawn in zip(scored, drawn, strict=True) if is_drawn]
    states += _mapped(lambda one: choose(one, run.settings), old)
    for state in states:
        run.states[state["dataset"]] = state
        if state["status"] in ("failed", "awaiting_labels"):
            word = state["status"].replace("_", " ")
            _say_failed(console, f"{state['dataset']}: {word}", state["reason"])


def _measure(run: _Run, console: Console) -> None:
    """Take the gradients of every data set whose examples have labels."""
    missing = [c for c in run.candidates if run.states[c.name]["status"] == "measure"]
    measured = sum(state["status"] == "measured" for state in run.states.values())
    console.print(f"CoS-Low: {len(missing)} of {len(missing) + measured} data sets to measure")
    if not missing:
        return
    run.connect()
    for number, answer in enumerate(measure_gradients(missing, run.config, run.settings), 1):
        name = answer["dataset"]
        if answer["error"]:
            run.fail(name, answer["error"])
            _say_failed(console, f"{name} failed", answer["error"])
            continue
        run.states[name] = {"status": "measured", "reason": ""}
        console.print(f"  [{number:>3}/{len(missing)}] {name}", highlight=False)
    for candidate in missing:
        if run.states[candidate.name]["status"] == "measure":
            run.fail(candidate.name, "its worker gave no answer; run again")


def _estimated(run: _Run) -> list[dict[str, Any]]:
    records = [*_mapped(run.record, run.candidates), *run.unusable]
    settings = {"targets": run.config.targets, "fingerprint": run.fingerprint}
    if len(records) <= ESTIMATES_PER_TASK:
        return estimate_rows(records, run.calibration, **settings)
    run.connect()
    return estimate(records, run.calibration, **settings)


def _mapped(call: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(call, items))


def _say_failed(console: Console, what: str, reason: str) -> None:
    console.print(Text.assemble((f"{what}:", "yellow"), f" {reason}"), soft_wrap=True)
