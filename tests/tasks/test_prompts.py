"""Prompts, answer spans and stop tokens under the chat templates of real model families."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from taskeff.errors import DataError, ModelError
from taskeff.tasks import prompts
from taskeff.tasks.prompts import Prompter, template_hash
from tests.tasks.chat_families import (
    CHATML,
    DESCRIPTION,
    FAMILIES,
    TEMPLATES,
    TEXT,
    Family,
    tokenizer_of,
)


@pytest.fixture(scope="module", params=FAMILIES, ids=str)
def family(request) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def tokenizer(family: Family) -> PreTrainedTokenizerFast:
    return tokenizer_of(family)


@pytest.fixture(scope="module")
def prompter(tokenizer) -> Prompter:
    return Prompter(tokenizer, DESCRIPTION)


def test_the_prompt_is_what_the_family_was_trained_on(family, tokenizer, prompter):
    assert tokenizer.decode(prompter.prompt_ids(TEXT)) == family.prompt


def test_the_answer_span_is_exactly_the_answer(family, tokenizer, prompter):
    example = prompter.encode(TEXT, "yes", end_of_turn=False)
    assert tokenizer.decode(example.answer_ids) == family.answer
    assert example.prompt_ids == prompter.prompt_ids(TEXT)


def test_training_answers_end_the_turn(family, tokenizer, prompter):
    example = prompter.encode(TEXT, "yes", end_of_turn=True)
    assert tokenizer.decode(example.answer_ids) == family.answer + family.end
    assert example.answer_ids[-1] == tokenizer.convert_tokens_to_ids(family.end)


def test_the_span_is_that_of_the_whole_conversation(family, tokenizer, prompter):
    """Training sees the very tokens that the template gives for a finished conversation."""
    if family.template is None:
        pytest.skip("there is no template to compare with")
    example = prompter.encode(TEXT, "yes", end_of_turn=True)
    ours = tokenizer.decode(example.prompt_ids + example.answer_ids)
    content = f"{DESCRIPTION}\n\n{TEXT}" if family.prompt.count(DESCRIPTION + "\n\n") else TEXT
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "yes"}]
    if content is TEXT:
        messages.insert(0, {"role": "system", "content": DESCRIPTION})
    whole = tokenizer.apply_chat_template(messages, tokenize=False, date_string="26 Jul 2024")
    assert whole.startswith(ours) and not whole[len(ours) :].strip()


TRICKY = (" two  spaces ", "é漢😀\n\ttab", "{{ x }}", "<|im_end|", "a\u2028b", "</s", "[INST")
NO_SYSTEM_ROLE = ("mistral-7b-instruct-v0.3", "gemma-2-it")


@pytest.mark.parametrize("text", [TEXT, *TRICKY])
@pytest.mark.parametrize("description", [DESCRIPTION, ""])
def test_prompts_are_token_for_token_those_of_transformers(family, tokenizer, text, description):
    if family.template is None:
        pytest.skip("there is no template to compare with")
    messages = [{"role": "user", "content": text}]
    if description and family.template not in NO_SYSTEM_ROLE:
        messages.insert(0, {"role": "system", "content": description})
    elif description:
        messages[0]["content"] = f"{description}\n\n{text}"
    pinned = {"date_string": "26 Jul 2024", "enable_thinking": False}
    theirs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, **pinned)
    found = Prompter(tokenizer, description).prompt_ids(text)
    assert list(found) == list(theirs["input_ids"])


def test_stop_tokens_are_eos_and_the_end_of_turn(family, tokenizer, prompter):
    expected = {family.eos, family.end}
    assert set(tokenizer.convert_ids_to_tokens(prompter.stop_ids())) == expected


def test_exactly_one_bos(family, tokenizer, prompter):
    ids = prompter.prompt_ids(TEXT)
    if family.bos is None:
        assert not set(ids) & {tokenizer.bos_token_id}
    elif family.bos not in CHATML:
        assert ids.count(tokenizer.bos_token_id) == 1
        assert ids[0] == tokenizer.bos_token_id
    else:  # SmolLM2 opens every turn with its BOS
        assert ids.count(tokenizer.bos_token_id) == family.prompt.count(family.bos)


def test_without_a_description_only_the_question_is_asked(tokenizer):
    text = tokenizer.decode(Prompter(tokenizer, "").prompt_ids(TEXT))
    assert TEXT in text and DESCRIPTION not in text


def test_choices_are_encoded_as_answers_are(family, tokenizer, prompter):
    yes, no = prompter.choice_ids(["yes", "no"])
    assert yes == prompter.encode(TEXT, "yes", end_of_turn=False).answer_ids
    assert tokenizer.decode(no).strip() == "no"


def test_prompts_of_one_task_share_their_instruction(family, prompter, tokenizer):
    one, two = prompter.prompt_ids("Word: sky"), prompter.prompt_ids("Word: sea")
    shared = next(i for i, (a, b) in enumerate(zip(one, two, strict=True)) if a != b)
    assert tokenizer.decode(one[:shared]).endswith(f"{DESCRIPTION}{_between(family)}Word: s")


def _between(family: Family) -> str:
    return family.prompt.partition(DESCRIPTION)[2].partition("Word")[0]


@pytest.mark.parametrize(
    "target", ["e", "user", "model", "s", "New York\nis a city", "50 %", "é漢"]
)
def test_any_answer_is_found_whole(family, tokenizer, prompter, target):
    example = prompter.encode(TEXT, target, end_of_turn=False)
    assert tokenizer.decode(example.answer_ids).strip() == target
    assert tokenizer.decode(example.prompt_ids) == family.prompt


def test_spaces_around_an_answer_do_not_count(prompter):
    assert prompter.encode(TEXT, "  yes\n", end_of_turn=True) == prompter.encode(
        TEXT, "yes", end_of_turn=True
    )


def test_the_date_of_a_run_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    from datetime import datetime

    from transformers.utils import chat_template_utils

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 5, 6, tzinfo=tz)

    family = FAMILIES["llama-3.2"]
    today = Prompter(tokenizer_of(family), DESCRIPTION).prompt_ids(TEXT)
    monkeypatch.setattr(chat_template_utils, "datetime", Later)
    # A template compiled before the change may be cached; another string is compiled afresh.
    fresh = tokenizer_of(family)
    fresh.chat_template = "{# another day #}" + fresh.chat_template
    unpinned = fresh.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    assert "06 May 2031" in unpinned
    assert Prompter(fresh, DESCRIPTION).prompt_ids(TEXT) == today


def test_the_template_hash_is_of_the_template_alone(family, tokenizer):
    again = tokenizer_of(family)
    assert template_hash(tokenizer) == template_hash(again)
    if family.template:
        again.chat_template += " "
        assert template_hash(tokenizer) != template_hash(again)
    else:
        assert template_hash(tokenizer) == "plain"


def test_different_families_have_different_hashes():
    hashes = {template_hash(tokenizer_of(family)) for family in FAMILIES.values()}
    assert len(hashes) == len(FAMILIES)


def test_templates_run_in_a_sandbox():
    family = FAMILIES["smollm2"]
    for template in (
        "{{ messages.append(1) }}",
        "{{ messages.__class__.__mro__[-1].__subclasses__() }}",
    ):
        with pytest.raises(ModelError, match=r"chat template fails: .*(unsafe|not safely)"):
            Prompter(tokenizer_of(family, template), DESCRIPTION).prompt_ids(TEXT)


def test_a_template_that_fails_is_one_error():
    broken = tokenizer_of(FAMILIES["smollm2"], "{% for %}")
    with pytest.raises(ModelError, match="chat template fails"):
        Prompter(broken, DESCRIPTION).prompt_ids(TEXT)


def test_a_template_that_would_not_end_is_one_error():
    endless = tokenizer_of(
        FAMILIES["smollm2"],
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    )
    with pytest.raises(ModelError, match=r"chat template fails: .*takes more work"):
        Prompter(endless, DESCRIPTION).prompt_ids(TEXT)


def test_it_is_rendered_as_transformers_does():
    """Blocks trimmed, None printed, `tojson` as it is, `break` and `generation` known."""
    template = (
        "{% for m in messages %}\n  {%- if loop.index > 1 %}{% break %}{% endif %}\n"
        "  {{ m | tojson }} {{ tools }}{{ eos_token }}\n"
        "  {% generation %}\n  {{ m.content }}{% endgeneration %}\n{% endfor %}"
        "{{ messages | tojson(indent=2) }}{{ missing }}"
    )
    tokenizer = tokenizer_of(FAMILIES["smollm2"], template)
    text = "é <b>"
    messages = [{"role": "user", "content": text}]
    theirs = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert Prompter(tokenizer, "")._render(text, None) == theirs


def test_two_bos_tokens_are_refused():
    family = FAMILIES["llama-3.1"]
    template = (TEMPLATES / f"{family.template}.jinja").read_text(encoding="utf-8")
    doubled = tokenizer_of(family, "{{- bos_token }}" + template)
    with pytest.raises(ModelError, match="two BOS tokens"):
        Prompter(doubled, DESCRIPTION).prompt_ids(TEXT)


def test_a_template_whose_prompt_is_no_prefix_is_refused():
    template = (
        "{% for m in messages %}{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}GO{% endif %}"
    )
    prompter = Prompter(tokenizer_of(FAMILIES["smollm2"], template), DESCRIPTION)
    with pytest.raises(ModelError, match="no prefix of prompt"):
        prompter.encode(TEXT, "yes", end_of_turn=False)


def test_a_template_that_changes_the_answer_is_refused():
    template = "{% for m in messages %}{{ m['content'] | upper }}|{% endfor %}"
    prompter = Prompter(tokenizer_of(FAMILIES["smollm2"], template), DESCRIPTION)
    with pytest.raises(ModelError, match="does not write the answer as it is given"):
        prompter.encode(TEXT, "yes", end_of_turn=False)


@pytest.mark.parametrize("target", ["", " \n"])
def test_an_empty_answer_is_refused(prompter, target):
    with pytest.raises(DataError, match="example 'row-7': the answer is empty"):
        prompter.encode(TEXT, target, end_of_turn=False, example_id="row-7")


def test_an_unlabelled_example_is_refused(prompter):
    from taskeff.tasks.task import Example

    with pytest.raises(DataError, match="example 'row-7' has no label"):
        prompter.encode_example(Example("row-7", TEXT), end_of_turn=True)
    labelled = prompter.encode_example(Example("row-7", TEXT, "no"), end_of_turn=True)
    assert labelled == prompter.encode(TEXT, "no", end_of_turn=True, example_id="row-7")


def test_an_answer_that_merges_with_the_prompt_is_refused():
    core = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "ab": 2}, merges=[("a", "b")]))
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, chat_template=template)
    with pytest.raises(DataError, match="merge at their boundary"):
        Prompter(tokenizer, "").encode("a", "b", end_of_turn=False)


def test_decode_leaves_special_tokens_out(family, tokenizer, prompter):
    example = prompter.encode(TEXT, "yes", end_of_turn=True)
    assert prompter.decode(example.answer_ids) == family.answer


def test_a_text_with_the_models_own_markers_closes_no_turn(family, tokenizer, prompter):
    plain = prompter.encode(TEXT, "yes", end_of_turn=True)
    assert not prompter.escapes(TEXT)
    rendered = "".join(prompter.marked(plain))
    marks = {m for m in (*tokenizer.all_special_tokens, "[/INST]", "<|im_end|>") if m in rendered}
    assert marks
    for mark in marks:
        assert prompter.escapes(f"one {mark} two")
        found = prompter.encode(f"{TEXT} {mark}\nhello", f"no{mark}", end_of_turn=True)
        assert "".join(prompter.marked(found)).count(mark) == rendered.count(mark), mark
        special = set(tokenizer.all_special_ids)
        ids = (*found.prompt_ids, *found.answer_ids)
        whole = (*plain.prompt_ids, *plain.answer_ids)
        assert [i for i in ids if i in special] == [i for i in whole if i in special]


def test_words_in_brackets_that_are_no_markers_stay(prompter):
    assert not prompter.escapes("<b>bold</b> [NOTE] a < b | c > d <|mine|>")


class Panic(BaseException):
    """As the Rust code of a tokenizer panics."""


@pytest.mark.parametrize("raised", [ZeroDivisionError("by\nzero"), Panic("at src/lib.rs")])
@pytest.mark.parametrize("name", ["__call__", "get_chat_template"])
def test_whatever_a_tokenizer_or_a_template_raises_is_one_line(monkeypatch, name, raised):
    tokenizer = tokenizer_of(FAMILIES["smollm2"])
    prompter = Prompter(tokenizer, DESCRIPTION)

    def fail(*_, **__):
        raise raised

    monkeypatch.setattr(type(tokenizer), name, fail)
    with pytest.raises(ModelError) as error:
        prompter.prompt_ids(TEXT)
    said = str(error.value)
    assert type(raised).__name__ in said
    assert "zero\n" not in said and "\n" not in said


def test_no_token_id_is_written_in_the_module():
    import ast
    import inspect

    numbers = {
        node.value
        for node in ast.walk(ast.parse(inspect.getsource(prompts)))
        if isinstance(node, ast.Constant) and type(node.value) is int
    }
    assert numbers <= {0, 1}
