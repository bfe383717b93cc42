"""A ranking from manifest to page on local Ray, run again, and what bad data does to it."""

import json
import math
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from taskeff.config import CosLowConfig, ModelConfig, ScoringConfig
from taskeff.config_file import load_config
from taskeff.coslow.pipeline import Outcome
from taskeff.coslow.shards import read_parts
from taskeff.distributed import coslow
from taskeff.distributed.coslow import OnRay
from taskeff.distributed.session import ray_session
from taskeff.errors import ClusterError
from taskeff.rank_config import RankConfig
from taskeff.run.ranking import ESTIMATES_PER_TASK, rank
from taskeff.storage import Store
from taskeff.tasks.manifest import load_manifest
from taskeff.tasks.rows import PoolStream
from tests.distributed import candidates as made
from tests.distributed import engines
from tests.helpers import run_cli

pytestmark = [pytest.mark.cluster]
QUIET = Console(quiet=True)


@pytest.fixture(scope="module", autouse=True)
def one_cluster():
    """Workers that imported torch once serve every test of this file."""
    with ray_session():
        yield


@pytest.fixture(scope="module")
def family(tiny_model, tmp_path_factory):
    return made.family(tiny_model, tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
def finished(tiny_model, family, tmp_path_factory):
    """(folder, rows) of a ranking of five data sets and an entry that is none."""
    folder = tmp_path_factory.mktemp("ranking")
    manifest = made.write_manifest(folder, [*made.some(folder), {"name": "empty"}])
    config = made.rank_config(tiny_model, manifest, folder / "out", family)
    return folder, rank(config, OnRay(), QUIET)


def files(folder: Path) -> dict[str, int]:
    """Every artefact of a data set and when it was written."""
    found = (folder / "out" / "coslow").rglob("*.*")
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in found if p.is_file()}


def by_name(rows):
    return {row["name"]: row for row in rows}


def scores(folder: Path, name: str, out: str = "out") -> dict[int, float | None]:
    """Row number -> confidence of a data set's published pool."""
    (home,) = (folder / out / "coslow" / f"task={name}").iterdir()
    parts = json.loads((home / "pool.json").read_text())["parts"]
    assert sorted(p.name for p in home.glob("part-*")) == sorted(parts)
    indices, values, _ = read_parts(Store(str(home)), parts)
    return dict(zip(indices, values, strict=True))


def test_labelled_data_sets_go_from_manifest_to_labels_needed(finished):
    folder, rows = finished
    found = by_name(rows)
    assert {name: row["status"] for name, row in found.items()} == {
        "kinds": "ranked",
        "feelings": "ranked",
        "twice": "ranked",
        "unlabelled": "awaiting_labels",
        "tiny": "failed",
        "empty": "unusable",
    }
    kinds = found["kinds"]
    assert kinds["cos_low_low"] <= kinds["cos_low"] <= kinds["cos_low_high"]
    assert kinds["labels_80"] < kinds["labels_90"]
    assert kinds["cost_90"] == 0.5 * math.ceil(kinds["labels_90"])
    assert found["feelings"]["cost_90"] == 2 * math.ceil(found["feelings"]["labels_90"])
    assert [row["rank"] for row in rows] == [1, 2, 3, None, None, None]
    assert [row["auc"] for row in rows[:3]] == sorted((r["auc"] for r in rows[:3]), reverse=True)
    assert "fewer than the 8 to label" in found["tiny"]["reason"]
    assert found["twice"]["duplicates"] == 40
    assert any("40 of 72 rows repeat another" in w for w in found["twice"]["warnings"])
    assert "entry 6" in found["empty"]["reason"]
    table = pq.read_table(folder / "out" / "ranking.parquet")
    assert table["name"].to_pylist() == [row["name"] for row in rows]
    page = (folder / "out" / "ranking.html").read_text()
    assert all(row["name"] in page for row in rows)


def test_every_row_is_scored_and_keeps_its_number(finished):
    folder, _ = finished
    found = scores(folder, "kinds")
    # What a calibration would test and validate on is not in the pool.
    entries = load_manifest(str(folder / "manifest.yaml")).entries
    (spec,) = (one.spec for one in entries if one.spec.task == "kinds")
    assert set(found) == {row.index for row in PoolStream(spec, 0)}
    assert len(found) == 48
    assert all(0 < value <= 1 for value in found.values())


def test_running_it_again_from_what_it_wrote_measures_nothing(finished):
    folder, rows = finished
    before, table = files(folder), (folder / "out" / "ranking.parquet").read_bytes()
    config = load_config(str(folder / "out" / "config.yaml"), None, RankConfig)
    assert rank(config, OnRay(), QUIET) == rows
    assert files(folder) == before
    assert (folder / "out" / "ranking.parquet").read_bytes() == table


@pytest.mark.slow
def test_one_more_data_set_is_the_only_one_measured(finished, tiny_model, family):
    folder, rows = finished
    before = files(folder)
    made.write_lines(folder / "more.jsonl", made.word_rows(made.LABELS["kinds"], 9, 30))
    given = yaml.safe_load((folder / "manifest.yaml").read_text())["datasets"]
    wider = folder / "wider.yaml"
    # So many entries that their estimates are made by the cluster.
    bad = [{"name": f"bad{i}"} for i in range(ESTIMATES_PER_TASK)]
    wider.write_text(yaml.safe_dump([*given, *bad, made.entry("more", made.LABELS["kinds"])]))
    config = made.rank_config(tiny_model, wider, folder / "out", family)
    found = by_name(rank(config, OnRay(), QUIET))
    assert found["more"]["status"] == "ranked"
    after = files(folder)
    assert {path: after[path] for path in before} == before
    assert all("task=more" in path for path in set(after) - set(before))
    for row in rows:
        if row["status"] == "ranked":
            assert found[row["name"]]["labels_90"] == row["labels_90"]


@pytest.mark.slow
def test_labels_filled_in_are_found_by_the_next_run(finished, tiny_model, family):
    folder, _ = finished
    (home,) = (folder / "out" / "coslow" / "task=unlabelled").iterdir()
    path = home / "to_annotate.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(records) == 8
    assert all(record["label"] == "" for record in records)
    config = made.rank_config(tiny_model, folder / "manifest.yaml", folder / "out", family)
    filled = [{**record, "label": record["choices"][0]} for record in records]
    made.write_lines(path, [*filled[:-1], records[-1]])
    waiting = by_name(rank(config, OnRay(), QUIET))["unlabelled"]
    assert (waiting["status"], "1 of 8 rows" in waiting["reason"]) == ("awaiting_labels", True)
    made.write_lines(path, filled)
    found = by_name(rank(config, OnRay(), QUIET))["unlabelled"]
    assert found["status"] == "ranked"
    assert "all examples have one and the same label" in found["warnings"]


def test_one_bad_row_among_ten_thousand_is_named_and_the_others_scored(
    tiny_model, family, tmp_path
):
    rows = made.word_rows(made.LABELS["kinds"], 0, 10_000)
    path = made.write_lines(tmp_path / "many.jsonl", rows)
    lines = path.read_text().splitlines()
    lines[6_543] = lines[6_543][:-2]
    path.write_text("\n".join(lines) + "\n")
    manifest = made.write_manifest(
        tmp_path, [made.entry("many", made.LABELS["kinds"], labels="none")]
    )
    scoring = {"shard_rows": 512, "actors": [2, 2], "readers": 1}
    config = made.rank_config(tiny_model, manifest, tmp_path / "out", family, scoring=scoring)
    lines = Console(record=True, file=open("/dev/null", "w"), width=400)  # noqa: SIM115
    (row,) = rank(config, OnRay(engines.Constant), lines)
    assert (row["rows"], row["unscored"]) == (10_000, 1)
    found = scores(tmp_path, "many")
    assert sorted(found) == list(range(10_000))
    assert [index for index, value in found.items() if value is None] == [6_543]
    assert f"{path}, line 6544: not JSON" in row["warnings"][0]
    assert f"{path}, line 6544: not JSON" in lines.export_text()


@pytest.mark.slow
def test_a_row_the_engine_cannot_take_costs_itself(tiny_model, family, tmp_path):
    made.write_lines(tmp_path / "words.jsonl", made.word_rows(made.LABELS["kinds"], 1, 60))
    manifest = made.write_manifest(
        tmp_path, [made.entry("words", made.LABELS["kinds"], labels="none")]
    )
    config = made.rank_config(tiny_model, manifest, tmp_path / "out", family)
    (row,) = rank(config, OnRay(engines.Poisoned), QUIET)
    assert 0 < row["unscored"] < 30
    assert "a sum that seven divides" in row["warnings"][0]
    bad = {index for index, value in scores(tmp_path, "words").items() if value is None}
    assert len(bad) == row["unscored"]


@pytest.mark.slow
def test_a_fault_of_the_machine_is_tried_again(tiny_model, family, tmp_path):
    made.write_lines(tmp_path / "words.jsonl", made.word_rows(made.LABELS["kinds"], 1, 40))
    manifest = made.write_manifest(
        tmp_path, [made.entry("words", made.LABELS["kinds"], labels="none")]
    )
    config = made.rank_config(tiny_model, manifest, tmp_path / "out", family)
    (row,) = rank(config, OnRay(engines.OutOfMemory), QUIET)
    assert (row["status"], row["reason"]) == ("failed", "RuntimeError: out of memory")
    # Which shards there are is known, none of them is scored.
    assert [Path(name).name for name in files(tmp_path)] == ["pool.json"]
    (row,) = rank(config, OnRay(engines.Constant), QUIET)
    assert row["status"] == "awaiting_labels"
    assert sorted(scores(tmp_path, "words")) == list(range(40))


def test_what_can_never_be_placed_is_refused(tiny_model, family, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    manifest = made.write_manifest(tmp_path, [{"name": "a", "task": "name_gender"}])
    scoring = {"gpus_per_actor": 99}
    config = made.rank_config(tiny_model, manifest, tmp_path / "out", family, scoring=scoring)
    with pytest.raises(ClusterError, match=r"99 GPUs .* this cluster has \d+; lower scoring.gpus"):
        rank(config, OnRay(), QUIET)


@pytest.mark.slow
def test_no_room_is_said_and_not_waited_for_without_end(tiny_model, family, tmp_path, monkeypatch):
    made.write_lines(tmp_path / "words.jsonl", made.word_rows(made.LABELS["kinds"], 1, 60))
    manifest = made.write_manifest(tmp_path, [made.entry("words", made.LABELS["kinds"])])
    scoring = {"cpus_per_actor": 512, "actors": [1, 1], "readers": 1, "placement_timeout": 0.05}
    config = made.rank_config(tiny_model, manifest, tmp_path / "out", family, scoring=scoring)
    # As on a cluster that may grow: there nothing can be refused beforehand.
    monkeypatch.setattr("taskeff.distributed.coslow._check_placeable", lambda scoring: None)
    with pytest.raises(ClusterError, match=r"no room within 0\.05 minutes .* 512 CPU"):
        rank(config, OnRay(), QUIET)


def test_every_outcome_is_given_once_and_as_soon_as_it_is_known(monkeypatch):
    """A row that comes after its data set is complete may fail without undoing it."""
    given = []

    def stream(*_, **__):
        for event in (
            Outcome("a", "measured"),
            Outcome("a", "failed", "late"),
            Outcome("b", "failed", "a shard"),
            Outcome("b", "awaiting_labels", "label 3 rows"),
            Outcome("c", "failed", "gone"),
        ):
            given.append(event.name)
            yield event

    monkeypatch.setattr(coslow, "_stream", stream)
    monkeypatch.setattr(coslow, "_bounded", nullcontext)
    data_sets = [SimpleNamespace(name=name) for name in "abcd"]
    events = coslow.measure(
        data_sets, ModelConfig(path="x", name="x"), CosLowConfig(), ScoringConfig()
    )
    assert next(events) == Outcome("a", "measured")
    assert given == ["a"]
    assert list(events) == [
        Outcome("b", "awaiting_labels", "label 3 rows"),
        Outcome("c", "failed", "gone"),
        Outcome("d", "failed", "not all its shards came back; run again"),
    ]


@pytest.mark.slow
def test_an_engine_that_cannot_start_is_one_line(tiny_model, family, tmp_path):
    made.write_lines(tmp_path / "words.jsonl", made.word_rows(made.LABELS["kinds"], 1, 40))
    manifest = made.write_manifest(tmp_path, [made.entry("words", made.LABELS["kinds"])])
    config = made.rank_config(tiny_model, manifest, tmp_path / "out", family)
    with pytest.raises(ClusterError, match="ModelError: cannot load the model of 'x'") as caught:
        rank(config, OnRay(engines.CannotStart), QUIET)
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_wrong_with_the_run_is_one_line(tiny_model, family, tmp_path, monkeypatch, capsys):
    manifest = made.write_manifest(tmp_path, [{"name": "a", "task": "name_gender"}, {"name": "b"}])
    options = ["--model", tiny_model, "--family", family, "--out", tmp_path / "out"]
    command = ["rank", "--manifest", manifest, *options]
    code, _, error = run_cli(monkeypatch, capsys, *command, "--strict")
    assert (code, "manifest.yaml, entry 2: give" in error) == (2, True)
    code, _, error = run_cli(monkeypatch, capsys, *command, "coslow.rank=4", "coslow.n_examples=9")
    assert code == 2
    assert "n_examples 9" in error
    code, _, error = run_cli(monkeypatch, capsys, "rank", "--manifest", manifest)
    assert (code, "--model, --family, --out" in error) == (2, True)
    code, _, error = run_cli(monkeypatch, capsys, *command, "scoring=[3")
    assert (code, "the options: not a readable configuration" in error) == (2, True)
    code, _, error = run_cli(monkeypatch, capsys, *command, "scoring.shard_row=3")
    assert (code, "did you mean 'shard_rows'" in error) == (2, True)


def test_options_beside_a_file_override_it(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("taskeff.run.ranking.rank", lambda config, *_: asked.append(config))
    options = ["--model", "other/model", "--dtype", "float16", "--strict"]
    code, *_ = run_cli(monkeypatch, capsys, "rank", "-c", "configs/rank.yaml", *options)
    assert code == 0
    assert (asked[0].model.path, asked[0].model.dtype) == ("other/model", "float16")
    assert asked[0].strict


def test_the_configuration_that_is_shipped_is_one():
    from taskeff.config_file import load_config
    from taskeff.rank_config import RankConfig

    config = load_config("configs/rank.yaml", ["targets=[0.5]"], RankConfig)
    assert config.targets == (0.5,)
    assert config.scoring.cpus_per_actor <= 0.5
