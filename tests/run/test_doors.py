"""One file, one model, one seed: the same number through every door, bit for bit."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from taskeff.config_file import parse_config
from taskeff.coslow.shards import Shard, read_parts
from taskeff.estimate.calibration import Calibration
from taskeff.run.driver import calibrate
from taskeff.run.inline import InlineExecutor, InProcess
from taskeff.run.ranking import rank
from taskeff.storage import Store
from tests.distributed import candidates as made
from tests.helpers import TASKS, run_cli, run_values

QUIET = Console(quiet=True)
# Cells that a reader which guesses types would change.
CODES = ("0113", "n/a", "1937-05-01", "1.10", "12345678901234567890", "None", "1e5", "")
SIGNAL = {"n_examples": 8, "pool_cap": 60, "max_new_tokens": 4, "rank": 4}
SAME = ("cos_low", "cos_low_low", "cos_low_high", "mean_cosine", "balanced_cosine", "n_pool")


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> Path:
    """A task file beside a CSV of 160 rows, of which a pool takes 60."""
    folder = tmp_path_factory.mktemp("words")
    labels = made.LABELS["kinds"]
    rows = made.word_rows(labels, 7, 160)
    with (folder / "words.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["word", "code", "kind"])
        writer.writerows([r["text"], CODES[i % 8], r["label"]] for i, r in enumerate(rows))
    spec = {
        "task": "words",
        "dataset_path": "csv",
        "dataset_kwargs": {"data_files": "words.csv"},
        "description": made.entry("words", labels)["description"],
        "doc_to_text": "Code: {{code}}\n{{word}}",
        "doc_to_target": "{{kind}}",
        "doc_to_choice": labels,
        "metric": "exact_match",
    }
    path = folder / "words.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def family(tiny_model, tmp_path_factory) -> Path:
    return made.family(tiny_model, tmp_path_factory.mktemp("family"))


@pytest.fixture
def read(monkeypatch) -> list[list[int]]:
    """Every prompt that this process scores, as token ids; to be emptied between doors."""
    seen: list[list[int]] = []
    whole = Shard.prompts

    def noted(shard: Shard) -> list[list[int]]:
        prompts = whole(shard)
        seen.extend(prompts)
        return prompts

    monkeypatch.setattr(Shard, "prompts", noted)
    return seen


def found(storage: Path) -> dict[str, Any]:
    """What the data set's folder says of its pool, its draw and its CoS-Low."""
    (home,) = (m.parent for m in storage.rglob("coslow.json") if TASKS[0] not in str(m))
    selection, pool, coslow = (
        json.loads((home / name).read_text())
        for name in ("selection.json", "pool.json", "coslow.json")
    )
    return {
        "pool": read_parts(Store(str(home)), pool["parts"])[:2],
        "drawn": [(row["id"], row["text"], row["confidence"]) for row in selection["rows"]],
        "cosines": pq.read_table(home / "cosines.parquet").to_pydict(),
        "coslow": {key: coslow[key] for key in SAME},
    }


@pytest.fixture
def by_hand(words, tiny_model, family, tmp_path, monkeypatch, capsys) -> Path:
    """`select`, the labels filled in as the file has them, `score`."""
    out = tmp_path / "by-hand"
    for arguments in (
        ("select", "--task", words, "--family", family, "--pool-cap", 60),
        ("score",),
    ):
        code, _, err = run_cli(monkeypatch, capsys, *arguments, "--model", tiny_model, "--out", out)
        assert code == 0, err
        with (words.parent / "words.csv").open(newline="", encoding="utf-8") as file:
            kinds = {f"Code: {r['code']}\n{r['word']}": r["kind"] for r in csv.DictReader(file)}
        lines = (out / "to_annotate.jsonl").read_text("utf-8").splitlines()
        rows = [{**row, "label": kinds[row["text"]]} for row in map(json.loads, lines)]
        made.write_lines(out / "to_annotate.jsonl", rows)
    return out


def calibrated(words: Path, model: Path, storage: Path, executor: Any) -> Path:
    """The task as one of a calibration."""
    values = run_values(model, storage, coslow=SIGNAL)
    values["tasks"] = {"calibration": [TASKS[0], str(words)]}
    calibrate(parse_config(values, "test"), executor, QUIET)
    return storage


def ranked(
    words: Path, model: Path, family: Path, out: Path, measures: Any, console: Console = QUIET
) -> Path:
    """The task as an entry of a ranking."""
    manifest = made.write_manifest(words.parent, [{"name": "words", "task": words.name}])
    config = made.rank_config(model, manifest, out, family, coslow=SIGNAL, scoring={})
    rank(config, measures, console)
    return out


def test_every_door_of_this_process_gives_the_same(
    words, tiny_model, family, read, by_hand, tmp_path
):
    expected, prompts = found(by_hand), list(read)
    assert len(prompts) == len(expected["pool"][0]) == 60
    assert "".join(text for _, text, _ in expected["drawn"]).count("Code: ") == 8
    read.clear()
    assert found(calibrated(words, tiny_model, tmp_path / "grid", InlineExecutor)) == expected
    assert [prompt for prompt in read if prompt in prompts] == prompts
    read.clear()
    assert found(ranked(words, tiny_model, family, tmp_path / "rank", InProcess())) == expected
    assert read == prompts


def test_the_familys_caveat_is_said_where_the_ranking_is(words, tiny_model, family, tmp_path):
    doubted = tmp_path / "doubted.json"
    known = Calibration.load(family)
    dataclasses.replace(known, caveat="a caveat of this family").save(doubted)
    said = Console(file=io.StringIO(), width=10_000)
    ranked(words, tiny_model, doubted, tmp_path / "rank", InProcess(), said)
    assert "warning: a caveat of this family" in said.file.getvalue()
    assert "a caveat of this family" in (tmp_path / "rank" / "ranking.csv").read_text("utf-8-sig")


@pytest.mark.slow
@pytest.mark.cluster
def test_ray_gives_the_same(words, tiny_model, family, by_hand, tmp_path):
    from taskeff.distributed.coslow import OnRay
    from taskeff.distributed.executor import RayExecutor
    from taskeff.distributed.session import ray_session

    with ray_session():
        grid = calibrated(words, tiny_model, tmp_path / "grid", RayExecutor)
        ranking = ranked(words, tiny_model, family, tmp_path / "rank", OnRay())
    assert found(grid) == found(by_hand)
    assert found(ranking) == found(by_hand)
