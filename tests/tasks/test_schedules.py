"""Answers of the counting and time puzzles, worked out again from the text alone."""

import re
from collections import Counter

from taskeff.tasks.suite import build
from taskeff.tasks.suite.schedules import COUNTED

ROWS = 300
SIZES = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4}
PLURALS = {many: kind for kind, things in COUNTED.items() for _, many in things}
SINGULARS = {
    one.split(maxsplit=1)[1]: kind for kind, things in COUNTED.items() for one, _ in things
}


def test_objects_are_counted_right():
    rows = build("object_counting", 1, rows=ROWS)
    for row in rows:
        asked = re.search(r"How many (.+) do I have", row["question"]).group(1)
        listed = row["question"].removeprefix("I have ").split(". How many")[0]
        total = 0
        for item in re.split(r", | and ", listed):
            size, thing = item.split(maxsplit=1)
            if PLURALS.get(thing, SINGULARS.get(thing)) == asked:
                total += SIZES[size]
        assert str(total) == row["label"]
    counts = Counter(row["label"] for row in rows)
    assert len(counts) == 9 and max(counts.values()) - min(counts.values()) <= 1


def hour(text: str) -> int:
    if text == "noon":
        return 12
    number = int(text[:-2])
    return number if text.endswith("am") else number + 12


def test_the_free_stretch_is_the_one_without_a_sighting():
    rows = build("temporal_sequences", 1, rows=ROWS)
    for row in rows:
        woke = hour(re.search(r"woke up at (\w+)\.", row["story"]).group(1))
        closed = hour(re.search(r"closed at (\w+)\.", row["story"]).group(1))
        busy = {
            h
            for start, end in re.findall(r"from (\w+) to (\w+)\.", row["story"])
            for h in range(hour(start), hour(end))
        }
        free = sorted(set(range(woke, closed)) - busy)
        options = dict(line.split(": ") for line in row["options"].splitlines())
        stretches = {k: tuple(map(hour, v.split(" to "))) for k, v in options.items()}
        assert len(set(stretches.values())) == 4
        assert stretches[row["label"]] == (free[0], free[-1] + 1)
        assert free == list(range(free[0], free[-1] + 1))
    counts = Counter(row["label"] for row in rows)
    assert set(counts) == set("abcd") and max(counts.values()) == ROWS / 4


def test_the_same_seed_gives_the_same_rows_and_another_others():
    for name in ("object_counting", "temporal_sequences"):
        assert build(name, 3, rows=20) == build(name, 3, rows=20) != build(name, 4, rows=20)
