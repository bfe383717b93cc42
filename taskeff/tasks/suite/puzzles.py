"""Rule-made tasks of order, place and time, in the style of BIG-bench."""

from __future__ import annotations

import random

from taskeff.tasks.suite.sampling import PEOPLE, Row, generate

# The usual order of English adjectives, outermost first.
ADJECTIVES = (
    ["lovely", "awful", "splendid", "strange", "terrible"],
    ["big", "tiny", "huge", "small", "enormous"],
    ["old", "new", "ancient", "modern", "antique"],
    ["round", "square", "oval", "flat", "triangular"],
    ["red", "blue", "green", "black", "yellow"],
    ["French", "Turkish", "Chinese", "Mexican", "Russian"],
    ["wooden", "leather", "plastic", "silk", "steel"],
)
THINGS = [
    "bag", "bell", "book", "bottle", "bowl", "box", "brush", "candle", "card", "clock", "cup",
    "drum", "fork", "hat", "jar", "key", "knife", "lamp", "mug", "pen", "plate", "purse", "ring",
    "rope", "scarf", "shoe", "spoon", "toy", "vase", "watch",
]  # fmt: skip
COLOURS = ["red", "blue", "green", "black", "yellow", "purple", "orange", "pink"]
BALLS = ("red", "blue", "green")
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
ANCHORS = {"Yesterday was": -1, "Today is": 0, "Tomorrow is": 1}


def adjective_order(rng: random.Random, *, adjectives: int = 4, rows: int = 1500) -> list[Row]:
    """Nouns behind adjectives in the usual order or not; columns `phrase`, `label`.

    The label is right or wrong.
    """

    def make(label: str) -> Row | None:
        ranks = rng.sample(range(len(ADJECTIVES)), adjectives)
        order = sorted(ranks) if label == "right" else ranks
        if (order == sorted(ranks)) != (label == "right"):
            return None
        words = [rng.choice(ADJECTIVES[rank]) for rank in order]
        return {"phrase": " ".join([*words, rng.choice(THINGS)]), "label": label}

    return generate(rng, make, ("right", "wrong"), rows)


def coloured_objects(rng: random.Random, *, objects: int = 4, rows: int = 1600) -> list[Row]:
    """A row of things, each of its own colour; columns `scene`, `question`, `label` (a colour).

    Half the questions name the thing, half its neighbour.
    """

    def make(label: str) -> Row:
        things = rng.sample(THINGS, objects)
        others = rng.sample([colour for colour in COLOURS if colour != label], objects - 1)
        asked = rng.randrange(objects)
        colours = [*others[:asked], label, *others[asked:]]
        scene = ", ".join(
            f"{'an' if colour == 'orange' else 'a'} {colour} {thing}"
            for colour, thing in zip(colours, things, strict=True)
        )
        question = f"What colour is the {things[asked]}?"
        if asked and rng.random() < 0.67:
            question = f"What colour is the thing directly right of the {things[asked - 1]}?"
        return {"scene": scene, "question": question, "label": label}

    return generate(rng, make, COLOURS, rows)


def shuffled_objects(rng: random.Random, *, swaps: int = 3, rows: int = 1500) -> list[Row]:
    """Three people swap three balls; columns `start`, `swaps`, `person`, `label` (a colour)."""

    def make(label: str) -> Row:
        people = rng.sample(PEOPLE, len(BALLS))
        held = dict(zip(people, rng.sample(BALLS, len(BALLS)), strict=True))
        start = ", ".join(f"{person} has the {ball} ball" for person, ball in held.items())
        steps = [rng.sample(people, 2) for _ in range(swaps)]
        for one, other in steps:
            held[one], held[other] = held[other], held[one]
        return {
            "start": start,
            "swaps": " ".join(f"{one} and {other} swap." for one, other in steps),
            "person": next(person for person, ball in held.items() if ball == label),
            "label": label,
        }

    return generate(rng, make, BALLS, rows)


def weekdays(rng: random.Random, *, furthest: int = 99, rows: int = 1540) -> list[Row]:
    """Days of the week at a distance; columns `anchor`, `question`, `label` (a day)."""

    def make(label: str) -> Row:
        phrase, shift = rng.choice(sorted(ANCHORS.items()))
        distance, later = rng.randint(2, furthest), rng.random() < 0.5
        today = DAYS.index(label) - (distance if later else -distance)
        question = f"What day {'will it be in' if later else 'was it'} {distance} days"
        return {
            "anchor": f"{phrase} {DAYS[(today + shift) % len(DAYS)]}.",
            "question": f"{question}?" if later else f"{question} ago?",
            "label": label,
        }

    return generate(rng, make, DAYS, rows)
