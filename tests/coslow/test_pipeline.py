"""A data set on its way, without a model: what is shared, what is redone, what is asked for."""

import json
from dataclasses import replace

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from taskeff.config import CosLowConfig
from taskeff.coslow.confidence import Confidence
from taskeff.coslow.data_set import DataSet, scored_pool, shards_to_score
from taskeff.coslow.draw import rehearse
from taskeff.coslow.handoff import to_annotate
from taskeff.coslow.pipeline import Scored, Worker, state_of
from taskeff.coslow.pool import RenderedPool, SpecPool
from taskeff.coslow.shards import read_parts, score_shard
from taskeff.errors import DataError
from taskeff.models import load_tokenizer, model_config
from taskeff.storage import Store
from taskeff.tasks.task import Example, TaskSpec

SETTINGS = CosLowConfig(n_examples=8)


class Counting:
    """A confidence from the tokens, and a count of the rows asked for."""

    model = None

    def __init__(self):
        self.rows = 0

    def score(self, prompts, *, stop_ids, max_new_tokens):
        self.rows += len(prompts)
        return [Confidence((sum(ids) % 997) / 997) for ids in prompts]


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return load_tokenizer(model_config(str(tiny_model)))


@pytest.fixture
def engine():
    return Counting()


@pytest.fixture
def worker(engine, tokenizer):
    return Worker(engine, tokenizer)


def rows(n, label="a"):
    return [{"text": f"row {i}", "label": label} for i in range(n)]


def write(path, given):
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    return path


def data_set(path, folder, *, labelled=True, settings=SETTINGS, **changes):
    spec = TaskSpec.model_validate(
        {
            "task": "t",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": str(path)},
            "description": "Say a or b.",
            "doc_to_text": "{{ text }}",
            "doc_to_choice": ["a", "b"],
            # Nothing is cut off, so that every row can be told by its number.
            "test_split": None,
            **({"doc_to_target": "{{ label }}"} if labelled else {}),
        }
    )
    return DataSet(
        **{
            "name": "t",
            "pool": SpecPool(spec, 0, settings, labelled=labelled),
            "folder": Store(str(folder)),
            "settings": settings,
            "made_with": "0123",
            "fingerprint": {},
            "shard_rows": 16,
            **changes,
        }
    )


def scored(worker, data):
    *events, outcome = worker.run(data)
    assert all(isinstance(event, Scored) for event in events)
    return outcome


def parts(folder):
    return json.loads((folder / "pool.json").read_text())["parts"]


@pytest.mark.parametrize("n", [8, 15, 16, 17, 32])
def test_every_row_is_in_one_shard_whatever_the_pools_size(tmp_path, tokenizer, n):
    data = data_set(write(tmp_path / "rows.jsonl", rows(n)), tmp_path, labelled=False)
    shards = list(shards_to_score(data, tokenizer))
    assert [i for shard in shards for i in shard.indices] == list(range(n))
    assert [shard.number for shard in shards] == list(range(-(-n // 16)))
    assert parts(tmp_path) == [shard.part for shard in shards]


def test_too_small_a_pool_is_refused_before_a_row_is_scored(tmp_path, worker, engine):
    path = write(tmp_path / "rows.jsonl", rows(7))
    path.write_text(path.read_text() + "{broken\n")
    found = scored(worker, data_set(path, tmp_path / "out", labelled=False))
    assert found.status == "failed"
    assert "7 rows that can be used, fewer than the 8 to label" in found.reason
    assert "line 8: not JSON" in found.reason
    assert engine.rows == 0


def test_what_leaves_too_few_rows_is_named_wherever_it_stands(tmp_path, worker):
    path = write(tmp_path / "rows.jsonl", rows(7))
    path.write_text(path.read_text() + "{broken\n")
    found = scored(worker, data_set(path, tmp_path / "out", labelled=False, shard_rows=4))
    assert "rows.jsonl, line 8: not JSON" in found.reason


def test_another_cut_is_another_pool(tmp_path, tokenizer, worker):
    path = write(tmp_path / "rows.jsonl", rows(40))
    data = data_set(path, tmp_path / "out")
    scored(worker, data)
    assert scored_pool(data) is not None
    spec = data.pool.spec.model_copy(update={"test_size": 5})
    assert scored_pool(replace(data, pool=replace(data.pool, spec=spec))) is None


def test_a_longer_file_costs_the_shards_that_changed(tmp_path, worker, engine):
    path, out = write(tmp_path / "rows.jsonl", rows(40)), tmp_path / "out"
    data = data_set(path, out, labelled=False)
    scored(worker, data)
    before = parts(out)
    assert engine.rows == 40
    scored(worker, data)
    assert engine.rows == 40
    write(path, rows(50))
    assert scored_pool(data) is None
    scored(worker, data)
    assert engine.rows == 40 + 18
    after = parts(out)
    assert after[:2] == before[:2]
    assert read_parts(data.folder, after)[0] == list(range(50))


def test_other_settings_in_the_same_folder_share_no_part(tmp_path, worker, engine):
    path = write(tmp_path / "rows.jsonl", rows(16))
    scored(worker, data_set(path, tmp_path / "out", labelled=False))
    scored(worker, data_set(path, tmp_path / "out", labelled=False, made_with="4567"))
    assert engine.rows == 32


def test_a_damaged_part_is_scored_again(tmp_path, worker, engine):
    path, out = write(tmp_path / "rows.jsonl", rows(16)), tmp_path / "out"
    data = data_set(path, out, labelled=False)
    scored(worker, data)
    (part,) = parts(out)
    (out / "selection.json").unlink()
    (out / "pool.json").unlink()
    (out / part).write_bytes(b"PAR1")
    assert scored(worker, data).status == "awaiting_labels"
    assert engine.rows == 32


def test_a_row_scored_twice_is_found_out(tmp_path, worker):
    data = data_set(write(tmp_path / "rows.jsonl", rows(16)), tmp_path / "out", labelled=False)
    scored(worker, data)
    (part,) = parts(tmp_path / "out")
    with pytest.raises(DataError, match="scored twice"):
        read_parts(data.folder, [part, part])


def test_an_engine_that_miscounts_is_not_believed(tmp_path, tokenizer):
    class Short(Counting):
        def score(self, prompts, **_):
            return super().score(prompts[1:], stop_ids=(), max_new_tokens=1)

    data = data_set(write(tmp_path / "rows.jsonl", rows(16)), tmp_path, labelled=False)
    with pytest.raises(RuntimeError, match="15 answers for 16 prompts"):
        score_shard(Short(), next(shards_to_score(data, tokenizer)))


def test_a_confidence_that_is_no_number_is_no_confidence(tmp_path, tokenizer):
    class Broken(Counting):
        def score(self, prompts, **_):
            return [Confidence(float("nan")) for _ in prompts]

    data = data_set(write(tmp_path / "rows.jsonl", rows(8)), tmp_path, labelled=False)
    table = score_shard(Broken(), next(shards_to_score(data, tokenizer)))
    assert table["confidence"].to_pylist() == [None] * 8
    assert table["reason"].to_pylist() == ["not a number"] * 8


def test_new_labels_keep_the_scores_and_redo_the_rest(tmp_path, worker, engine):
    path, out = write(tmp_path / "rows.jsonl", rows(50)), tmp_path / "out"
    data = data_set(path, out)
    assert scored(worker, data).status == "measure"
    first, asked = json.loads((out / "selection.json").read_text()), engine.rows
    write(path, rows(50, "b"))
    assert scored(worker, data).status == "measure"
    assert engine.rows == asked
    after = json.loads((out / "selection.json").read_text())
    assert [r["label"] for r in first["rows"]] == ["a"] * 8
    assert [r["label"] for r in after["rows"]] == ["b"] * 8
    assert [r["id"] for r in after["rows"]] == [r["id"] for r in first["rows"]]


def test_a_source_with_some_labels_asks_for_the_others(tmp_path, worker):
    given = [{"text": f"row {i}", "label": "a" if i % 2 else ""} for i in range(50)]
    path, out = write(tmp_path / "rows.jsonl", given), tmp_path / "out"
    found = scored(worker, data_set(path, out))
    lines = (out / "to_annotate.jsonl").read_text().splitlines()
    labels = [json.loads(line)["label"] for line in lines]
    assert found.status == "awaiting_labels"
    assert f"label the {labels.count('')} rows" in found.reason
    assert set(labels) == {"", "a"}


def test_labels_are_found_where_they_were_handed_out_or_named(tmp_path, worker):
    path, out = write(tmp_path / "rows.jsonl", rows(50)), tmp_path / "out"
    data = data_set(path, out, labelled=False)
    assert scored(worker, data).status == "awaiting_labels"
    filled = (out / "to_annotate.jsonl").read_text().replace('"label": ""', '"label": "a"')
    (tmp_path / "mine.jsonl").write_text(filled)
    named = data_set(path, out, labelled=False, labels=str(tmp_path / "mine.jsonl"))
    assert state_of(named).outcome.status == "measure"
    (out / "to_annotate.jsonl").write_text(filled)
    found = state_of(data)
    assert found.outcome.status == "measure"
    assert [example.target for example in found.examples] == ["a"] * 8


def test_a_label_outside_the_choices_is_named_by_file_and_line(tmp_path, worker):
    path = write(tmp_path / "rows.jsonl", rows(50, "c"))
    found = scored(worker, data_set(path, tmp_path / "out"))
    assert found.status == "failed"
    assert "rows.jsonl, line 1: answer 'c' is not in doc_to_choice ['a', 'b']" in found.reason
    assert f"{path}, line " in found.reason


def test_nothing_is_handed_out_whose_labels_could_not_be_used(tmp_path, worker, tokenizer):
    path = tmp_path / "rows.jsonl"
    # As long as the answer merges with the prompt's blank end, no label of the row can be encoded.
    write(path, [{"input_text": f"Word {i} is" + " " * (i == 11)} for i in range(12)])
    settings = SETTINGS.model_copy(update={"n_examples": 12})
    pool = RenderedPool(str(path), settings)
    merging = PreTrainedTokenizerFast(tokenizer_object=merging_core())
    data = replace(data_set(path, tmp_path / "out"), pool=pool, settings=settings)
    found = scored(Worker(worker.engine, merging), data)
    assert found.status == "failed"
    assert "no row is handed out: example 'row-11': prompt and answer merge" in found.reason
    assert "take away the blank that the prompt ends in" in found.reason
    assert not {"selection.json", "to_annotate.jsonl"} & set(data.folder.names())


def merging_core():
    """A tokenizer in which " a" is one token, as in any trained on text."""
    letters = {letter: i for i, letter in enumerate("abWordis 0123456789")}
    return Tokenizer(models.BPE(vocab={**letters, " a": len(letters)}, merges=[(" ", "a")]))


def test_a_csv_that_would_not_be_read_back_is_said_before_anybody_labels(tmp_path, worker):
    # Both lines of the text look like rows of the file that it is written to.
    path = write(tmp_path / "rows.jsonl", [{"text": f"A,B,C,D,E,a\nP,Q{i}"} for i in range(8)])
    data = data_set(path, tmp_path / "out", labelled=False, form="csv")
    found = scored(worker, data)
    assert found.status == "failed"
    assert (
        "labels could not be used, so no row is handed out: to_annotate.csv, line" in found.reason
    )
    assert "look like rows of their own" in found.reason
    assert "to_annotate.csv" not in data.folder.names()
    assert scored(worker, replace(data, form="jsonl")).status == "awaiting_labels"


def test_every_choice_is_rehearsed_and_every_row_has_a_turn(tmp_path, worker, tokenizer):
    path = write(tmp_path / "rows.jsonl", rows(9))
    seen = []

    class Noting:
        def encode_example(self, example, *, end_of_turn):
            seen.append((example.id, example.target))

    choices = tuple("abcdefghijk")
    data = data_set(path, tmp_path, labelled=False)
    data = replace(
        data,
        pool=replace(data.pool, spec=data.pool.spec.model_copy(update={"doc_to_choice": choices})),
    )
    records = to_annotate([Example(f"r{i}", f"row {i}") for i in range(4)], [0.5] * 4, choices)
    records[1]["label"] = "k"
    rehearse(data, records, Noting())
    assert {answer for _, answer in seen} == set(choices)
    assert {row for row, _ in seen} == {f"r{i}" for i in range(4)}
    assert {answer for row, answer in seen if row == "r1"} == {"k"}


def test_what_became_of_the_rows_is_counted_and_stored(tmp_path, worker):
    marked = [{"text": f"mark <|im_end|> {i}"} for i in range(3)]
    path = write(tmp_path / "rows.jsonl", [*rows(30), *rows(5), *marked, {"text": "x"}])
    data = data_set(path, tmp_path / "out", labelled=False)
    spec = data.pool.spec.model_copy(update={"doc_to_keep": "{{ text != 'x' }}"})
    settings = SETTINGS.model_copy(update={"pool_cap": 20})
    data = replace(data, pool=SpecPool(spec, 0, settings, labelled=False), settings=settings)
    scored(worker, data)
    pool = json.loads((tmp_path / "out" / "selection.json").read_text())["pool"]
    assert pool["rows_in"] == 39
    counts = {key: pool[key] for key in ("duplicates", "left_out", "held_out", "beyond_cap")}
    assert counts == {"duplicates": 5, "left_out": 1, "held_out": 0, "beyond_cap": 13}
    assert pool["rows"] == 20
    whole = replace(data, pool=SpecPool(spec, 0, SETTINGS, labelled=False), settings=SETTINGS)
    scored(worker, replace(whole, folder=Store(str(tmp_path / "whole"))))
    assert json.loads((tmp_path / "whole" / "pool.json").read_text())["escaped"] == 3


def test_the_control_is_drawn_from_the_whole_pool(tmp_path, worker):
    path, out = write(tmp_path / "rows.jsonl", rows(200)), tmp_path / "out"
    settings = CosLowConfig(n_examples=8, quantile=0.05)
    scored(worker, data_set(path, out, settings=settings, control=True))
    found = json.loads((out / "selection.json").read_text())
    assert len(found["control"]) == 8
    assert {row["target"] for row in found["control"]} == {"a"}
    assert {row["id"] for row in found["control"]} != {row["id"] for row in found["rows"]}
