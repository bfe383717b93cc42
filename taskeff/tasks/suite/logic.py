"""Rule-made tasks of logic, in the style of BIG-bench."""

from __future__ import annotations

import random
from functools import cache
from itertools import combinations

from taskeff.tasks.suite.sampling import PEOPLE, Row, generate

Form = tuple[str, int, int]
"""Quantifier, subject, other: ("all", 0, 1) says that all of group 0 are in group 1."""

QUANTIFIERS = {
    "all": "All {} are {}.",
    "no": "No {} are {}.",
    "some": "Some {} are {}.",
    "some not": "Some {} are not {}.",
}
GROUPS = [
    "actors", "bakers", "chemists", "dancers", "editors", "farmers", "gardeners", "hikers",
    "joggers", "lawyers", "miners", "nurses", "painters", "pilots", "poets", "sailors", "singers",
    "swimmers", "tailors", "vegans",
]  # fmt: skip

# A being is the set of groups it belongs to; a world is the set of beings that exist in it.
BEINGS = [frozenset(groups) for size in (1, 2, 3) for groups in combinations(range(3), size)]
WORLDS = [
    frozenset(world)
    for size in range(1, len(BEINGS) + 1)
    for world in combinations(BEINGS, size)
    if len(frozenset().union(*world)) == 3
]


def boolean_expressions(rng: random.Random, *, terms: int = 4, rows: int = 1500) -> list[Row]:
    """Expressions in and, or, not and brackets; columns `expression`, `label` (True or False)."""

    def make(label: str) -> Row | None:
        text, value = _expression(rng, terms)
        return {"expression": text, "label": label} if str(value) == label else None

    return generate(rng, make, ("True", "False"), rows)


def _expression(rng: random.Random, terms: int) -> tuple[str, bool]:
    """An expression of `terms` constants, fully bracketed, with its value."""
    if terms == 1:
        text, value = rng.choice([("True", True), ("False", False)])
    else:
        left = rng.randint(1, terms - 1)
        (a, x), (b, y) = _expression(rng, left), _expression(rng, terms - left)
        operator = rng.choice(["and", "or"])
        text = f"( {a} {operator} {b} )"
        value = (x and y) if operator == "and" else (x or y)
    return (f"not {text}", not value) if rng.random() < 0.3 else (text, value)


def web_of_lies(rng: random.Random, *, people: int = 4, rows: int = 1500) -> list[Row]:
    """A chain of people who vouch for one another; columns `story`, `question`, `label`.

    The label is yes or no: does the last one tell the truth?
    """

    def make(label: str) -> Row | None:
        chain = rng.sample(PEOPLE, people)
        honest = rng.random() < 0.5
        story = [f"{chain[0]} {_verdict(honest)}."]
        for speaker, other in zip(chain[1:], chain, strict=False):
            says_honest = rng.random() < 0.5
            story.append(f"{speaker} says {other} {_verdict(says_honest)}.")
            honest = says_honest == honest
        if honest != (label == "yes"):
            return None
        question = f"Does {chain[-1]} tell the truth?"
        return {"story": " ".join(story), "question": question, "label": label}

    return generate(rng, make, ("yes", "no"), rows)


def _verdict(honest: bool) -> str:
    return "tells the truth" if honest else "lies"


def syllogisms(rng: random.Random, *, rows: int = 1500) -> list[Row]:
    """Two premises and a statement; columns `premises`, `statement`, `label`.

    The label is true, false or unknown, every group having at least one member.
    """

    def make(label: str) -> Row | None:
        forms = tuple(_form(rng, pair) for pair in ((0, 1), (1, 2), (0, 2)))
        if _verdict_of(forms) != label:
            return None
        groups = rng.sample(GROUPS, 3)
        first, second, statement = (
            QUANTIFIERS[kind].format(groups[subject], groups[other])
            for kind, subject, other in forms
        )
        return {"premises": f"{first} {second}", "statement": statement, "label": label}

    return generate(rng, make, ("true", "false", "unknown"), rows)


def _form(rng: random.Random, pair: tuple[int, int]) -> Form:
    subject, other = rng.sample(pair, 2)
    return rng.choice(tuple(QUANTIFIERS)), subject, other


@cache
def _verdict_of(forms: tuple[Form, ...]) -> str:
    """What two premises say about a third form, over every world of three non-empty groups."""
    *premises, statement = forms
    values = {
        _holds(statement, world)
        for world in WORLDS
        if all(_holds(premise, world) for premise in premises)
    }
    return "unknown" if len(values) == 2 else str(values.pop()).lower()


def _holds(form: Form, world: frozenset[frozenset[int]]) -> bool:
    kind, subject, other = form
    shared = any(subject in being and other in being for being in world)
    outside = any(subject in being and other not in being for being in world)
    return {"all": not outside, "no": not shared, "some": shared, "some not": outside}[kind]
