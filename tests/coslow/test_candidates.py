"""From a pool in shards to drawn examples, without a cluster: what is shared, redone, asked for."""

import json

import numpy as np
import pyarrow as pa
import pytest

from taskeff.config import CosLowConfig
from taskeff.coslow.candidates import Candidate, choose, publish_pool, scored_pool
from taskeff.coslow.engines import Scored
from taskeff.coslow.shards import Shard, publish_shard, read_parts, read_shards, score_shard
from taskeff.errors import DataError
from taskeff.models import load_tokenizer, model_config
from taskeff.storage import Store
from taskeff.tasks.manifest import Entry
from taskeff.tasks.prompts import Prompter
from taskeff.tasks.rows import PoolStream, source_stamp
from taskeff.tasks.task import TaskSpec

SETTINGS = CosLowConfig(n_examples=8)


class Counting:
    """A confidence from the tokens, and a count of the rows asked for."""

    def __init__(self):
        self.rows = 0

    def score(self, prompts, *, stop_ids, max_new_tokens):
        self.rows += len(prompts)
        return [Scored((sum(ids) % 997) / 997) for ids in prompts]


@pytest.fixture(scope="module")
def prompter(tiny_model):
    return Prompter(load_tokenizer(model_config(str(tiny_model))), "Say a or b.")


def rows(n, label="a"):
    return [{"text": f"row {i}", "label": label} for i in range(n)]


def write(path, given):
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    return path


def candidate(path, store, *, labelled=True):
    spec = TaskSpec.model_validate(
        {
            "task": "t",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": str(path)},
            "doc_to_text": "{{ text }}",
            "doc_to_target": "{{ label }}" if labelled else None,
            "doc_to_choice": ["a", "b"],
        }
    )
    return Candidate(Entry(spec, labelled), store, tuple(source_stamp(spec)), 0)


def shards_of(one, prompter, rows_per_shard=16):
    pool = PoolStream(one.entry.spec, 0, least=10**6)  # all rows, none kept for a test
    return list(read_shards(pool, prompter, rows_per_shard=rows_per_shard, max_new_tokens=4))


def scored(one, prompter, engine):
    found = [publish_shard(engine, shard, one.folder) for shard in shards_of(one, prompter)]
    publish_pool(one, found)
    return [shard["part"] for shard in found]


@pytest.mark.parametrize("n", [1, 15, 16, 17, 32])
def test_the_last_shard_is_marked_whatever_the_pools_size(tmp_path, prompter, n):
    one = candidate(write(tmp_path / "rows.jsonl", rows(n)), Store(str(tmp_path)))
    shards = shards_of(one, prompter)
    assert [shard.last for shard in shards] == [False] * (len(shards) - 1) + [True]
    assert [i for shard in shards for i in shard.indices] == list(range(n))
    assert [shard.number for shard in shards] == list(range(-(-n // 16)))


def test_a_shard_survives_arrow(tmp_path, prompter):
    path = write(tmp_path / "rows.jsonl", rows(5))
    path.write_text(path.read_text() + "{broken\n")
    (shard,) = shards_of(candidate(path, Store(str(tmp_path))), prompter)
    (record,) = pa.Table.from_pylist([shard.to_record()]).to_pylist()
    again = Shard.from_record(
        {k: np.array(v) if isinstance(v, list) else v for k, v in record.items()}
    )
    assert again == shard
    assert again.part == shard.part
    assert again.prompts() == [list(prompter.prompt_ids(f"row {i}")) for i in range(5)]


def test_a_longer_file_costs_the_shards_that_changed(tmp_path, prompter):
    path, store = write(tmp_path / "rows.jsonl", rows(40)), Store(str(tmp_path / "out"))
    first, engine = candidate(path, store), Counting()
    parts = scored(first, prompter, engine)
    assert engine.rows == 40
    assert scored(first, prompter, engine) == parts
    assert engine.rows == 40
    write(path, rows(50))
    second = candidate(path, store)
    assert scored_pool(second) is None
    after = scored(second, prompter, engine)
    assert engine.rows == 40 + 18
    assert after[:2] == parts[:2]
    assert read_parts(store, after)[0] == list(range(50))


def test_a_damaged_part_is_scored_again(tmp_path, prompter):
    path, store = write(tmp_path / "rows.jsonl", rows(16)), Store(str(tmp_path / "out"))
    one, engine = candidate(path, store), Counting()
    (part,) = scored(one, prompter, engine)
    (tmp_path / "out" / part).write_bytes(b"PAR1")
    before = engine.rows
    scored(one, prompter, engine)
    assert engine.rows == before + 16


def test_a_row_scored_twice_is_found_out(tmp_path, prompter):
    path, store = write(tmp_path / "rows.jsonl", rows(16)), Store(str(tmp_path / "out"))
    (part,) = scored(candidate(path, store), prompter, Counting())
    with pytest.raises(DataError, match="scored twice"):
        read_parts(store, [part, part])


def test_an_engine_that_miscounts_is_not_believed(tmp_path, prompter):
    class Short(Counting):
        def score(self, prompts, **_):
            return super().score(prompts[1:], stop_ids=(), max_new_tokens=1)

    one = candidate(write(tmp_path / "rows.jsonl", rows(16)), Store(str(tmp_path)))
    with pytest.raises(RuntimeError, match="15 answers for 16 prompts"):
        score_shard(Short(), shards_of(one, prompter)[0])


def test_a_confidence_that_is_no_number_is_no_confidence(tmp_path, prompter):
    class Broken(Counting):
        def score(self, prompts, **_):
            return [Scored(float("nan")) for _ in prompts]

    one = candidate(write(tmp_path / "rows.jsonl", rows(3)), Store(str(tmp_path)))
    table = score_shard(Broken(), shards_of(one, prompter)[0])
    assert table["confidence"].to_pylist() == [None] * 3
    assert table["reason"].to_pylist() == ["not a number"] * 3


def test_new_labels_keep_the_scores_and_redo_the_rest(tmp_path, prompter):
    path, store = write(tmp_path / "rows.jsonl", rows(40)), Store(str(tmp_path / "out"))
    one, engine = candidate(path, store), Counting()
    scored(one, prompter, engine)
    assert choose(one, SETTINGS)["status"] == "measure"
    inputs = json.loads((tmp_path / "out" / "selection.json").read_text())
    write(path, rows(40, "b"))
    other = candidate(path, store)
    scored(other, prompter, engine)
    assert engine.rows == 40
    assert choose(other, SETTINGS)["status"] == "measure"
    after = json.loads((tmp_path / "out" / "selection.json").read_text())
    assert (inputs["labels"], after["labels"]) == (["a"] * 8, ["b"] * 8)
    assert [r["id"] for r in after["rows"]] == [r["id"] for r in inputs["rows"]]


def test_a_source_with_some_labels_asks_for_the_others(tmp_path, prompter):
    given = [{"text": f"row {i}", "label": "a" if i % 2 else ""} for i in range(40)]
    path, store = write(tmp_path / "rows.jsonl", given), Store(str(tmp_path / "out"))
    one = candidate(path, store)
    scored(one, prompter, Counting())
    state = choose(one, SETTINGS)
    lines = (tmp_path / "out" / "to_annotate.jsonl").read_text().splitlines()
    labels = [json.loads(line)["label"] for line in lines]
    assert state["status"] == "awaiting_labels"
    assert f"label the {labels.count('')} rows" in state["reason"]
    assert set(labels) == {"", "a"}


def test_a_label_outside_the_choices_is_named_by_file_and_line(tmp_path, prompter):
    path, store = write(tmp_path / "rows.jsonl", rows(8, "c")), Store(str(tmp_path / "out"))
    one = candidate(path, store)
    scored(one, prompter, Counting())
    state = choose(one, SETTINGS)
    assert state["status"] == "failed"
    assert f"{path}, line 1: label 'c' is not one of ['a', 'b']" in state["reason"]


def test_an_unlabelled_pool_needs_no_label_column(tmp_path, prompter):
    path = write(tmp_path / "rows.jsonl", [{"text": f"row {i}"} for i in range(40)])
    one = candidate(path, Store(str(tmp_path / "out")), labelled=False)
    scored(one, prompter, Counting())
    assert choose(one, SETTINGS)["status"] == "awaiting_labels"
