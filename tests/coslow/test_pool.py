"""Pools of rendered prompts, in the published layout."""

import json

import pytest
from tokenizers import normalizers

from taskeff.config import CosLowConfig
from taskeff.coslow.pool import file_pool, task_pool
from taskeff.errors import ConfigError, DataError
from taskeff.tasks.prompts import Prompter
from tests.tiny_model import make_tokenizer

SETTINGS = CosLowConfig()


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def write(folder, rows, name="pool.json"):
    path = folder / name
    if name.endswith("l"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        path.write_text(json.dumps(rows, indent=4), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["pool.json", "pool.jsonl"])
def test_rows_come_in_order_and_can_be_read_again(tmp_path, name):
    texts = ["one\u2028line", "two", "three"]
    pool = file_pool(write(tmp_path, [{"input_text": t} for t in texts], name), SETTINGS)
    assert [row.text for row in pool] == [row.text for row in pool] == texts
    assert [row.text for row in pool.pick([0, 2])] == ["one\u2028line", "three"]
    assert (pool.size, pool.name, pool.rendered) == (3, "pool", True)


def test_the_hash_is_of_the_rows_not_the_layout(tmp_path):
    rows = [{"input_text": "a"}, {"input_text": "b"}]
    whole = file_pool(write(tmp_path, rows), SETTINGS)
    lines = file_pool(write(tmp_path, rows, "pool.jsonl"), SETTINGS)
    other = file_pool(write(tmp_path, rows[::-1], "other.json"), SETTINGS)
    assert whole.hash == lines.hash != other.hash


def test_a_rendered_prompt_gets_no_second_bos(tmp_path, tokenizer):
    messages = [
        {"role": "system", "content": "Answer yes or no."},
        {"role": "user", "content": "Word: sky"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    pool = file_pool(write(tmp_path, [{"input_text": text}]), SETTINGS)
    prompter, usual = pool.prompter(tokenizer), Prompter(tokenizer, "Answer yes or no.")
    ids = prompter.prompt_ids(text)
    assert ids == usual.prompt_ids("Word: sky")
    assert ids.count(tokenizer.bos_token_id) == 1
    assert prompter.encode(text, "yes", end_of_turn=False) == usual.encode(
        "Word: sky", "yes", end_of_turn=False
    )
    assert prompter.stop_ids() == usual.stop_ids()


def test_text_without_a_bos_gets_one(tmp_path, tokenizer):
    pool = file_pool(write(tmp_path, [{"input_text": "plain"}]), SETTINGS)
    ids = pool.prompter(tokenizer).prompt_ids("plain")
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1


def test_a_label_that_merges_with_its_prompt_names_the_row(tmp_path, tokenizer):
    prompter = file_pool(write(tmp_path, [{"input_text": "a"}]), SETTINGS).prompter(tokenizer)
    with pytest.raises(DataError, match="'row-7': prompt and answer merge"):
        prompter.encode("the weath", "er", end_of_turn=False, example_id="row-7")


def test_a_label_without_tokens_names_the_row(tmp_path):
    strips = make_tokenizer()
    strips.backend_tokenizer.normalizer = normalizers.Replace("~", "")
    rendered = file_pool(write(tmp_path, [{"input_text": "a"}]), SETTINGS).prompter(strips)
    for prompter in (rendered, Prompter(strips, "Answer.")):
        with pytest.raises(DataError, match="'row-3': the answer '~' has no tokens"):
            prompter.encode("Is it? ", "~", end_of_turn=False, example_id="row-3")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "pool.json: the pool is empty"),
        ([{"input_text": "a"}, {"text": "b"}], "entry 2: no field 'input_text'; it has text"),
        ([{"input_text": "a"}, {"input_text": 3}], "entry 2: 'input_text' is 3, not text"),
        ([{"input_text": "a"}, {"input_text": None}], "entry 2: 'input_text' is None, not text"),
        ([{"input_text": "a"}, {"input_text": " "}], "entry 2: 'input_text' is empty"),
        (["a"], "entry 1: expected an object"),
        ({"input_text": "a"}, "is one object over many lines"),
    ],
)
def test_bad_rows_are_named(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        file_pool(write(tmp_path, rows), SETTINGS)


def test_bad_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.json cannot be read"):
        file_pool(tmp_path / "none.json", SETTINGS)
    path = tmp_path / "broken.jsonl"
    path.write_text('{"input_text": "a"}\n{"input_text": ')
    with pytest.raises(DataError, match=r"broken\.jsonl, line 2: not JSON"):
        file_pool(path, SETTINGS)
    with pytest.raises(ConfigError, match="--pool-cap"):
        file_pool(path, CosLowConfig(pool_cap=10))


def test_a_task_is_a_pool_too():
    pool = task_pool("name_gender", CosLowConfig(pool_cap=20))
    assert pool.size == 20
    assert pool.choices == ("male", "female") or set(pool.choices) == {"male", "female"}
    assert pool.hash == task_pool("name_gender", CosLowConfig(pool_cap=20)).hash
    assert pool.hash != task_pool("name_gender", CosLowConfig(pool_cap=20, seed=1)).hash
