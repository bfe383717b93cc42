"""The bundled suite: what every task promises, and the answers derived a second way."""

import itertools
import json
import os
import re
import subprocess
import sys
from collections import Counter
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import pytest
import yaml

from taskeff.errors import DataError
from taskeff.tasks.suite import BUILDERS, FOLDER, build, suite_path, suite_tasks
from taskeff.tasks.suite.__main__ import describe, line
from taskeff.tasks.task import load_spec, load_task
from taskeff.tasks.templates import render

pytest.importorskip("babel", reason="needs pip install 'taskeff[demo]'")

TEST, VALIDATION, POOL = 300, 100, 640
SAMPLE = 80
PUBLISHED = Path(__file__).parents[2] / "configs" / "tasks"

DIGESTS = """
import hashlib, json, sys
from taskeff.tasks.suite import build
for name, args in json.loads(sys.argv[1]):
    print(name, hashlib.sha256(json.dumps(build(name, 3, **args)).encode()).hexdigest())
"""


def spec_rows(name, seed=0):
    spec = load_spec(name)
    return spec, build(spec.dataset_path.removeprefix("builder:"), seed, **spec.dataset_kwargs)


@cache
def rendered(name):
    spec, rows = spec_rows(name)
    pairs = [
        (
            render(spec.doc_to_text, row, field="doc_to_text"),
            render(spec.doc_to_target, row, field="doc_to_target"),
        )
        for row in rows
    ]
    return spec, pairs


def sample(builder, **args):
    return build(builder, 1, rows=SAMPLE, **args)


def test_the_suite_covers_what_the_calibration_needs():
    specs = [load_spec(name) for name in suite_tasks()]
    sizes = Counter(len(spec.doc_to_choice or ()) for spec in specs)
    real = [spec for spec in specs if "made by rule" not in spec.metadata["source"]]
    assert 16 <= len(specs) <= 20
    assert len(real) >= 9
    assert {0, 2, 3, 10} <= set(sizes)
    assert sizes[2] <= len(specs) / 2
    published = (yaml.safe_load(path.read_text("utf-8")) for path in PUBLISHED.glob("*.yaml"))
    used = {spec.dataset_path for spec in specs} | {values["dataset_path"] for values in published}
    assert {path for path in used if path.startswith("builder:")} == {
        f"builder:{name}" for name in BUILDERS
    }


@pytest.mark.parametrize("name", suite_tasks())
def test_a_task_file_is_plain_yaml_under_its_own_name(name):
    values = yaml.safe_load(suite_path(name).read_text("utf-8"))
    assert values["task"] == name
    assert values["metadata"].keys() == {"version", "licence", "source"}
    assert values["test_size"] >= TEST
    assert values["validation_size"] >= VALIDATION
    assert len(values["description"].split()) <= 60


@pytest.mark.parametrize("name", suite_tasks())
def test_rows_are_distinct_enough_and_never_contradict_each_other(name):
    _, pairs = rendered(name)
    assert len({text for text, _ in pairs}) == len(pairs) >= TEST + VALIDATION + POOL


@pytest.mark.parametrize("name", suite_tasks())
def test_answers_are_the_listed_labels_about_equally_often(name):
    spec, pairs = rendered(name)
    counts = Counter(answer for _, answer in pairs)
    assert all(answer == answer.strip() and answer for answer in counts)
    if spec.doc_to_choice is None:
        assert len(counts) > 0.9 * len(pairs)
        return
    assert set(counts) == set(spec.doc_to_choice)
    assert max(counts.values()) <= 1.05 * len(pairs) / len(counts)
    for label in spec.doc_to_choice:
        assert re.search(rf"\b{re.escape(label)}\b", spec.description), label


@pytest.mark.parametrize("name", suite_tasks())
def test_the_seed_fixes_the_rows(name):
    _, first = spec_rows(name, seed=5)
    _, again = spec_rows(name, seed=5)
    _, other = spec_rows(name, seed=6)
    assert first == again
    assert first != other
    assert all(isinstance(value, str) for row in first for value in row.values())


def test_rows_do_not_depend_on_the_hash_seed():
    calls = [
        ("cldr_phrases", {"languages": {"da": "Danish", "sv": "Swedish"}}),
        ("airports", {"column": "city", "countries": {"CL": "Chile", "FR": "France"}}),
        ("word_language", {"languages": {"nl": "Dutch", "de": "German"}}),
        ("part_of_speech", {}),
        ("syllogisms", {}),
        ("coloured_objects", {}),
    ]
    command = [sys.executable, "-c", DIGESTS, json.dumps(calls)]
    outputs = {
        subprocess.run(
            command,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(outputs.pop().splitlines()) == len(calls)


def test_the_readme_table_is_what_the_command_prints():
    readme = (FOLDER / "README.md").read_text("utf-8").splitlines()
    for name in suite_tasks():
        cells = line(describe(load_task(load_spec(name), 0))).removesuffix("|")
        assert any(row.startswith(cells) for row in readme), cells


# Answers derived a second way.


def test_boolean_expressions_have_the_value_python_gives_them():
    for row in sample("boolean_expressions"):
        assert set(re.findall(r"\w+", row["expression"])) <= {"True", "False", "and", "or", "not"}
        assert str(eval(row["expression"], {"__builtins__": {}})) == row["label"]


def test_web_of_lies_has_one_consistent_world():
    for row in sample("web_of_lies"):
        first, *claims = re.findall(r"[^.]+(?=\.)", row["story"])
        people = [first.split()[0], *(claim.split()[0] for claim in claims)]
        answers = set()
        for values in itertools.product([True, False], repeat=len(people)):
            honest = dict(zip(people, values, strict=True))
            said = [
                (honest[words[2]] == (words[3] == "tells")) == honest[words[0]]
                for words in map(str.split, claims)
            ]
            if honest[people[0]] == (first.split()[1] == "tells") and all(said):
                answers.add(honest[people[-1]])
        assert answers == {row["label"] == "yes"}
        assert row["question"] == f"Does {people[-1]} tell the truth?"


def test_syllogisms_hold_in_every_small_world():
    members = [set(s) for n in (1, 2, 3, 4) for s in itertools.combinations(range(4), n)]
    tests = {
        r"All (\w+) are (\w+)\.": lambda a, b: a <= b,
        r"No (\w+) are (\w+)\.": lambda a, b: not a & b,
        r"Some (\w+) are (?!not)(\w+)\.": lambda a, b: bool(a & b),
        r"Some (\w+) are not (\w+)\.": lambda a, b: bool(a - b),
    }

    def parse(sentence):
        return next(
            (holds, found.groups())
            for pattern, holds in tests.items()
            if (found := re.fullmatch(pattern, sentence))
        )

    for row in sample("syllogisms")[:30]:
        facts = [parse(fact) for fact in re.findall(r"[^.]+\.", row["premises"].replace(". ", "."))]
        holds, pair = parse(row["statement"])
        groups = sorted({group for _, names in facts for group in names})
        assert len(groups) == 3
        values = set()
        for sets in itertools.product(members, repeat=3):
            world = dict(zip(groups, sets, strict=True))
            if all(fact(world[a], world[b]) for fact, (a, b) in facts):
                values.add(holds(world[pair[0]], world[pair[1]]))
        assert {"true": {True}, "false": {False}, "unknown": {True, False}}[row["label"]] == values


def test_adjective_order_is_one_order():
    rows = build("adjective_order", 1)
    words = {
        label: [r["phrase"].split()[:-1] for r in rows if r["label"] == label]
        for label in ("right", "wrong")
    }
    before = {pair for phrase in words["right"] for pair in itertools.combinations(phrase, 2)}
    assert not {(b, a) for a, b in before} & before
    for phrase in words["wrong"]:
        assert any((b, a) in before for a, b in itertools.combinations(phrase, 2)), phrase
    assert ("lovely", "red") in before
    assert ("old", "wooden") in before


def test_coloured_objects_are_where_the_scene_puts_them():
    neighbours = 0
    for row in sample("coloured_objects"):
        pairs = [item.split()[1:] for item in row["scene"].split(", ")]
        things = [thing for _, thing in pairs]
        asked = things.index(row["question"].removesuffix("?").split()[-1])
        if "right of" in row["question"]:
            asked += 1
            neighbours += 1
        assert pairs[asked][0] == row["label"]
        assert len({colour for colour, _ in pairs}) == len(set(things)) == len(pairs)
    assert 0.3 * SAMPLE < neighbours < 0.7 * SAMPLE


def test_shuffled_objects_end_where_the_swaps_take_them():
    for row in sample("shuffled_objects"):
        held = dict(re.findall(r"(\w+) has the (\w+) ball", row["start"]))
        for one, other in re.findall(r"(\w+) and (\w+) swap", row["swaps"]):
            held[one], held[other] = held[other], held[one]
        assert held[row["person"]] == row["label"]


def test_weekdays_agree_with_the_calendar():
    shifts = {"Yesterday": 1, "Today": 0, "Tomorrow": -1}
    week = {f"{date(2024, 1, day):%A}": date(2024, 1, day) for day in range(1, 8)}
    for row in sample("weekdays"):
        when, _, day = row["anchor"].removesuffix(".").split()
        distance = int(re.search(r"\d+", row["question"])[0])
        distance = distance if "will" in row["question"] else -distance
        asked = week[day] + timedelta(days=shifts[when] + distance)
        assert f"{asked:%A}" == row["label"]


def test_the_common_word_is_the_commoner_one():
    from wordfreq import zipf_frequency

    for row in sample("common_words", gap=2.0):
        rare = "second" if row["label"] == "first" else "first"
        gap = zipf_frequency(row[row["label"]], "en") - zipf_frequency(row[rare], "en")
        assert gap >= 2.0


@pytest.mark.parametrize(
    ("builder", "args", "column", "value", "label"),
    [
        ("vader_sentiment", {}, "word", "terrible", "negative"),
        ("first_names", {}, "name", "Gertrude", "female"),
        ("part_of_speech", {}, "word", "slowly", "adverb"),
        ("verb_forms", {"form": "past"}, "verb", "eat", "ate"),
        ("verb_forms", {"form": "ing"}, "verb", "run", "running"),
        ("airports", {"column": "city", "countries": {"CN": "China"}}, "place", "Beijing", "China"),
        ("cldr_phrases", {"languages": {"fr": "French"}}, "phrase", "Allemagne", "French"),
        ("word_language", {"languages": {"nl": "Dutch"}}, "word", "wegens", "Dutch"),
    ],
)
def test_builders_know_what_everybody_knows(builder, args, column, value, label):
    cap = {"rows": 10_000} if builder == "verb_forms" else {"per_label": 10_000}
    assert {column: value, "label": label} in build(builder, 0, **args, **cap)


def test_a_digit_is_an_eight_by_eight_picture():
    rows = build("digits", 0)
    assert all(re.fullmatch(r"([.+#]{8}\n){7}[.+#]{8}", row["picture"]) for row in rows)
    assert {row["label"] for row in rows} == set("0123456789")


# What a wrong task file is told.


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("digit", {}, "did you mean 'digits'"),
        ("os.system", {}, "known: adjective_order"),
        ("digits", {"size": 3}, "unexpected keyword argument 'size'"),
        ("airports", {"column": "iata", "countries": {"FR": "France"}}, "not one of name, city"),
        ("airports", {"column": "name", "countries": {"XX": "?"}}, "no airports in XX"),
        ("cldr_phrases", {"languages": {"xx": "?"}}, "no CLDR locale 'xx'"),
        ("cldr_phrases", {"languages": ["fr"]}, "cannot use"),
        ("word_language", {"languages": {"xx": "?"}}, "no language 'xx'"),
        ("verb_forms", {"form": "future"}, "not one of past, ing"),
        ("weekdays", {"furthest": 3, "rows": 500}, "lower rows"),
        ("adjective_order", {"adjectives": 1, "rows": 5}, "lower rows"),
    ],
)
def test_a_wrong_name_or_argument_is_one_clear_error(name, args, message):
    with pytest.raises(DataError, match=re.escape(message)):
        build(name, 0, **args)


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "babel", None)
    with pytest.raises(DataError, match=r"'babel': pip install 'taskeff\[demo\]'"):
        build("cldr_phrases", 0, languages={"fr": "French"})


def test_an_unknown_task_suggests_the_nearest():
    with pytest.raises(DataError, match="did you mean 'weekdays'"):
        suite_path("weekday")
