"""Pools: a task's rows through every door, and files of rendered prompts."""

import json

import pytest
from tokenizers import normalizers

from taskeff.config import CosLowConfig
from taskeff.coslow.pool import RenderedPool, SpecPool, TaskPool, prompter_of
from taskeff.errors import DataError
from taskeff.tasks.prompts import Prompter
from taskeff.tasks.task import load_spec, load_task
from tests.tiny_model import make_tokenizer

SETTINGS = CosLowConfig()


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def rendered(path, **settings):
    return RenderedPool(str(path), CosLowConfig(**settings))


def write(folder, rows, name="pool.json"):
    path = folder / name
    if name.endswith("l"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        path.write_text(json.dumps(rows, indent=4), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["pool.json", "pool.jsonl"])
def test_rows_come_in_order_and_can_be_read_again(tmp_path, name):
    texts = [" one\u2028line\n", "two", "three", "two"]
    pool = rendered(write(tmp_path, [{"input_text": t} for t in texts], name))
    assert [row.text for row in pool.rows()] == [row.text for row in pool.rows()] == texts
    assert [row.text for row in pool.examples([2, 0])] == ["three", " one\u2028line\n"]
    assert (pool.about.name, pool.about.rendered) == ("pool", True)


def test_a_capped_pool_of_prompts_is_a_seeded_draw(tmp_path):
    path = write(tmp_path, [{"input_text": f"t{i}"} for i in range(50)])

    def ids(**settings):
        return [row.id for row in rendered(path, **settings).rows()]

    assert len(set(ids(pool_cap=20))) == 20
    assert ids(pool_cap=20) == ids(pool_cap=20) != ids(pool_cap=20, seed=1)
    assert ids(pool_cap=50) == ids()


def test_a_rendered_prompt_gets_no_second_bos(tmp_path, tokenizer):
    messages = [
        {"role": "system", "content": "Answer yes or no."},
        {"role": "user", "content": "Word: sky"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    pool = rendered(write(tmp_path, [{"input_text": text}]))
    prompter, usual = pool.about.prompter(tokenizer), Prompter(tokenizer, "Answer yes or no.")
    ids = prompter.prompt_ids(text)
    assert ids == usual.prompt_ids("Word: sky")
    assert ids.count(tokenizer.bos_token_id) == 1
    assert prompter.encode(text, "yes", end_of_turn=False) == usual.encode(
        "Word: sky", "yes", end_of_turn=False
    )
    assert prompter.stop_ids() == usual.stop_ids()


def test_text_without_a_bos_gets_one(tokenizer):
    ids = prompter_of(tokenizer, "", rendered=True).prompt_ids("plain")
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1


def test_a_label_that_merges_with_its_prompt_names_the_row(tokenizer):
    prompter = prompter_of(tokenizer, "", rendered=True)
    with pytest.raises(DataError, match="'row-7': prompt and answer merge"):
        prompter.encode("the weath", "er", end_of_turn=False, example_id="row-7")


def test_a_label_without_tokens_names_the_row():
    strips = make_tokenizer()
    strips.backend_tokenizer.normalizer = normalizers.Replace("~", "")
    for prompter in (prompter_of(strips, "", rendered=True), Prompter(strips, "Answer.")):
        with pytest.raises(DataError, match="'row-3': the answer '~' has no tokens"):
            prompter.encode("Is it? ", "~", end_of_turn=False, example_id="row-3")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "b"}, "no field 'input_text'; it has text"),
        ({"input_text": 3}, "'input_text' is 3, not text; quote it"),
        ({"input_text": None}, "'input_text' is None, not text; quote it"),
        ({"input_text": " "}, "'input_text' is empty; fill the row or drop it"),
        ("a", "expected an object, got str"),
    ],
)
def test_a_bad_row_is_an_error_of_its_own(tmp_path, row, message):
    pool = rendered(write(tmp_path, [{"input_text": "a"}, row]))
    good, bad = pool.rows()
    assert (good.text, good.error) == ("a", None)
    assert (bad.text, bad.error) == ("", message)
    assert "pool.json, entry 2" in bad.where


def test_bad_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.json"):
        list(rendered(tmp_path / "none.json").rows())
    path = tmp_path / "broken.jsonl"
    path.write_text('{"input_text": "a"}\n{"input_text": ')
    assert [bool(row.error) for row in rendered(path).rows()] == [False, True]
    assert "broken.jsonl, line 2" in [row.where for row in rendered(path).rows()][1]


@pytest.mark.parametrize("cap", [None, 20, 5000])
def test_a_task_is_the_same_pool_in_a_file_and_loaded(cap):
    """Rows, ids, order and labels."""
    spec, settings = load_spec("name_gender"), CosLowConfig(pool_cap=cap)
    read, loaded = SpecPool(spec, 3, settings), TaskPool(load_task(spec, 3), settings)
    ours, theirs = list(read.rows()), list(loaded.rows())
    assert [(r.index, r.id, r.text) for r in ours] == [(r.index, r.id, r.text) for r in theirs]
    assert len(ours) == (20 if cap == 20 else len(load_task(spec, 3).train))
    numbers = [row.index for row in ours[:9]]
    assert read.examples(numbers) == loaded.examples(numbers)
    assert all(example.target for example in read.examples(numbers))


def test_another_seed_is_another_draw():
    spec = load_spec("name_gender")
    ids = {
        seed: [r.id for r in SpecPool(spec, 0, CosLowConfig(pool_cap=20, seed=seed)).rows()]
        for seed in (0, 1)
    }
    assert ids[0] != ids[1]


def test_a_pool_that_is_not_to_be_labelled_shows_no_label():
    pool = SpecPool(load_spec("name_gender"), 0, CosLowConfig(pool_cap=20), labelled=False)
    numbers = [row.index for row in pool.rows()][:3]
    assert [example.target for example in pool.examples(numbers)] == [None] * 3
