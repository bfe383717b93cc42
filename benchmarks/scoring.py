"""How fast and how bounded confidence streams over many data sets.

    python benchmarks/scoring.py speed --model .cache/smollm2-135m-instruct
    python benchmarks/scoring.py memory --model .cache/smollm2-135m-instruct
    python benchmarks/scoring.py row --model .cache/smollm2-135m-instruct

`speed`: rows per second of one engine (a) in a bare loop in this process, the model loaded once
before the clock starts; (b) in a loop over the data sets that loads the model for each; (c) in the
ranking's stream with one actor and (d) with two. Streams are timed from their first finished shard
to their last, so that a start-up is in none but (b), where it is the point; it is printed apart.

`memory`: a scorer of constant cost in place of the model; the driver's resident memory and the
object store's use at their highest, over pools of growing size.

`row`: what one row of the bundled tasks costs in tokens, bytes and seconds of one core; the numbers
that docs/scale.md is derived from.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import yaml

from taskeff.config import CosLowConfig
from taskeff.config_file import parse_config
from taskeff.coslow.confidence import Confidence
from taskeff.coslow.data_set import DataSet, shards_to_score
from taskeff.coslow.engines import BuiltinEngine, EngineFactory
from taskeff.coslow.gradients import gradient_gram
from taskeff.coslow.pipeline import Outcome, Scored
from taskeff.coslow.pool import SpecPool
from taskeff.coslow.shards import Shard, part_table, read_shards, score_shard
from taskeff.distributed.coslow import measure
from taskeff.distributed.session import ray_session
from taskeff.lm.packing import shared_prefix
from taskeff.models import load_tokenizer
from taskeff.rank_config import RankConfig
from taskeff.storage import Store
from taskeff.tasks.manifest import load_manifest
from taskeff.tasks.prompts import Prompter
from taskeff.tasks.task import load_spec, load_task

SETTINGS = CosLowConfig(max_new_tokens=4)
SCORED = 64  # rows that `row` lets the engine score
DESCRIPTION = (
    "You will be given some English words. Decide which of them names something that is alive. "
    "Answer with exactly one of these two words: first, last."
)
TASKS = ["sentiment_words", "past_tense", "boolean_expressions", "coloured_objects", "weekdays"]
WORDS = "cat stone river oak chair wolf cloud fern lamp trout brick rose spoon hawk glass moss"


class Constant:
    """A confidence from the tokens' sum."""

    model = None

    def __init__(self, *made_with: Any):
        pass

    def score(self, prompts, *, stop_ids=(), max_new_tokens=1):
        """See `taskeff.coslow.engines.ConfidenceEngine`."""
        return [Confidence((sum(ids) % 10007) / 10007) for ids in prompts]


def make(folder: Path, model: str, datasets: int, rows: int, actors: int, shard: int) -> Any:
    """(configuration, data sets) of so many made-up data sets of so many rows each."""
    rng = random.Random(0)
    words = WORDS.split()
    entries = []
    for number in range(datasets):
        lines = (
            json.dumps({"text": f"Words: {' '.join(rng.choices(words, k=6))} {i}"}) + "\n"
            for i in range(rows)
        )
        (folder / f"d{number}.jsonl").write_text("".join(lines))
        entries.append(
            {
                "name": f"d{number}",
                "source": f"d{number}.jsonl",
                "text_column": "text",
                "description": DESCRIPTION,
            }
        )
    (folder / "manifest.yaml").write_text(yaml.safe_dump(entries))
    config = parse_config(
        {
            "manifest": str(folder / "manifest.yaml"),
            "model": {"path": model, "name": "benchmark", "dtype": "float32"},
            "family": "none",
            "out": str(folder / f"out-{actors}"),
            "scoring": {"actors": [actors, actors], "readers": 1, "shard_rows": shard},
        },
        "benchmark",
        RankConfig,
    )
    return config, data_sets(config)


def data_sets(config: RankConfig) -> list[DataSet]:
    """The manifest's data sets, nothing scored of them yet."""
    return [
        DataSet(
            name=entry.name,
            pool=SpecPool(entry.spec, 0, SETTINGS, labelled=False),
            folder=Store(config.out).child(entry.name),
            settings=SETTINGS,
            made_with="benchmark",
            fingerprint={},
            shard_rows=config.scoring.shard_rows,
        )
        for entry in load_manifest(config.manifest).entries
    ]


def streamed(
    config: RankConfig, made: list[DataSet], factory: EngineFactory
) -> tuple[float, float]:
    """(rows per second between the first finished shard and the last, seconds to the first)."""
    started = time.perf_counter()
    first = last = 0.0
    rows = 0
    for event in measure(made, config.model, SETTINGS, config.scoring, factory):
        if isinstance(event, Outcome):
            if event.status == "failed":
                raise SystemExit(event.reason)
            continue
        assert isinstance(event, Scored)
        last = time.perf_counter()
        if first:
            rows += event.rows
        else:
            first = last
    return rows / (last - first), first - started


def bare(config: RankConfig, made: list[DataSet], *, reload: bool) -> float:
    """Rows per second of a loop in this process."""
    tokenizer = load_tokenizer(config.model)
    engine = BuiltinEngine(config.model, SETTINGS, config.scoring)
    rows, started = 0, time.perf_counter()
    for data in made:
        if reload:
            engine = BuiltinEngine(config.model, SETTINGS, config.scoring)
        for shard in shards_to_score(data, tokenizer):
            rows += len(score_shard(engine, shard))
    return rows / (time.perf_counter() - started)


def speed(options: argparse.Namespace) -> None:
    """Print the four rates and their ratios."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)

        def made(actors: int) -> Any:
            sizes = options.datasets, options.rows
            return make(folder, options.model, *sizes, actors, options.shard)

        print(f"{options.datasets} data sets of {options.rows} rows, shards of {options.shard}")
        rates: dict[str, list[float]] = {"bare": [], "reload": [], "one": [], "two": []}
        for round_ in range(options.rounds):
            config, _ = made(1)
            config = config.model_copy(update={"out": f"{config.out}-bare"})
            rates["bare"].append(bare(config, data_sets(config), reload=False))
            rates["reload"].append(bare(config, data_sets(config), reload=True))
            for name, actors in (("one", 1), ("two", 2)):
                config, _ = made(actors)
                config = config.model_copy(update={"out": f"{config.out}-{round_}"})
                with ray_session():
                    rate, start = streamed(config, data_sets(config), BuiltinEngine)
                rates[name].append(rate)
                print(f"  round {round_}, {actors} actor(s): first shard after {start:.1f} s")
        best = {name: max(found) for name, found in rates.items()}
        print("| variant | rows/s, best | all rounds | x bare loop | x one actor |")
        print("|---|---|---|---|---|")
        for name, found in rates.items():
            print(
                f"| {name} | {best[name]:.1f} | {', '.join(f'{r:.1f}' for r in found)} "
                f"| {best[name] / best['bare']:.2f} | {best[name] / best['one']:.2f} |"
            )


class Watch(threading.Thread):
    """The most memory this process and the object store held, looked at four times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.rss = self.store = 0
        self._end = threading.Event()

    def run(self) -> None:
        """Look until told to end."""
        import ray
        from ray._private.internal_api import get_memory_info_reply, get_state_from_address

        state = get_state_from_address(ray.get_runtime_context().gcs_address)
        me = psutil.Process()
        while not self._end.wait(0.25):
            self.rss = max(self.rss, me.memory_info().rss)
            used = get_memory_info_reply(state).store_stats.object_store_bytes_used
            self.store = max(self.store, used)

    def end(self) -> None:
        """Stop looking."""
        self._end.set()
        self.join()


def memory(options: argparse.Namespace) -> None:
    """Print the highest memory for each pool size."""
    print("| rows | driver MB before | driver MB, highest | object store MB, highest | rows/s |")
    print("|---|---|---|---|---|")
    with ray_session():
        # Imports and Ray's own buffers are paid by a first stream that is not shown.
        for rows in [1000, *options.sizes]:
            with tempfile.TemporaryDirectory() as scratch:
                config, made = make(Path(scratch), options.model, 1, rows, 1, options.shard)
                before = psutil.Process().memory_info().rss
                watch = Watch()
                watch.start()
                rate, _ = streamed(config, made, Constant)
                watch.end()
                if rows in options.sizes:
                    print(
                        f"| {rows} | {before / 1e6:.0f} | {watch.rss / 1e6:.0f} "
                        f"| {watch.store / 1e6:.1f} | {rate:.0f} |",
                        flush=True,
                    )


def row(options: argparse.Namespace) -> None:
    """Print tokens, bytes and seconds per row, over the bundled tasks."""
    config = parse_config(
        {
            "manifest": "none",
            "model": {"path": options.model, "name": "benchmark", "dtype": "float32"},
            "family": "none",
            "out": "none",
        },
        "benchmark",
        RankConfig,
    )
    tokenizer = load_tokenizer(config.model)
    engine = BuiltinEngine(config.model, SETTINGS, config.scoring)
    print(
        "| task | prompt tokens | after the shared prefix | text bytes | shard bytes | part bytes "
        "| read and tokenise, rows/s | score, rows/s | gradients, s per 32 |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    found = [_row(name, options, tokenizer, engine) for name in options.tasks]
    for name, values in [
        *zip(options.tasks, found, strict=True),
        ("mean", [sum(column) / len(found) for column in zip(*found, strict=True)]),
    ]:
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in values) + " |")


def _row(name: str, options: argparse.Namespace, tokenizer: Any, engine: Any) -> list[float]:
    task = load_task(load_spec(name), 0)
    prompter = Prompter(tokenizer, task.spec.description)

    def shards(rows: int) -> Iterator[Shard]:
        return read_shards(
            SpecPool(task.spec, 0, SETTINGS).rows(),
            prompter,
            rows_per_shard=rows,
            max_new_tokens=SETTINGS.max_new_tokens,
            made_with="benchmark",
        )

    few = next(shards(SCORED))
    started = time.perf_counter()
    score_shard(engine, few)
    scored = time.perf_counter() - started
    stream = shards(options.rows)
    next(stream)  # the builder and the first row's compilation are not a row's cost
    started = time.perf_counter()
    shard = next(stream)
    read = time.perf_counter() - started
    prompts = shard.prompts()
    sink = io.BytesIO()
    pq.write_table(part_table(shard, Constant(None, None).score(prompts)), sink)
    examples = [prompter.encode_example(one, end_of_turn=False) for one in task.train[:32]]
    started = time.perf_counter()
    gradient_gram(engine.model, examples, memory=500_000_000)
    gradients = time.perf_counter() - started
    rows = len(prompts)
    tokens = sum(map(len, prompts)) / rows
    text = sum(len(one.text.encode()) for one in task.train[:rows]) / len(task.train[:rows])
    return [
        tokens,
        tokens - shared_prefix(prompts),
        text,
        len(pickle.dumps(shard)) / rows,
        len(sink.getvalue()) / rows,
        rows / read,
        SCORED / scored,
        gradients,
    ]


def main() -> None:
    """Run one of the three."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["speed", "memory", "row"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--datasets", type=int, default=6)
    parser.add_argument("--rows", type=int, default=256, help="rows of each data set, for speed")
    parser.add_argument("--shard", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 50_000, 200_000])
    parser.add_argument("--tasks", nargs="+", default=TASKS, help="bundled tasks, for row")
    options = parser.parse_args()
    {"speed": speed, "memory": memory, "row": row}[options.what](options)


if __name__ == "__main__":
    main()
