"""Rule-made tasks of counting and of time, in the style of BIG-bench."""

from __future__ import annotations

import random
from itertools import pairwise

from taskeff.tasks.suite.sampling import PEOPLE, Row, generate

# Singular, plural; each thing belongs to one kind.
COUNTED = {
    "musical instruments": [
        ("a piano", "pianos"), ("a flute", "flutes"), ("a trombone", "trombones"),
        ("a violin", "violins"), ("a drum", "drums"), ("a trumpet", "trumpets"),
        ("a clarinet", "clarinets"), ("an accordion", "accordions"),
    ],
    "fruits": [
        ("a banana", "bananas"), ("an apple", "apples"), ("a peach", "peaches"),
        ("a plum", "plums"), ("an orange", "oranges"), ("a pear", "pears"),
        ("a lemon", "lemons"), ("a mango", "mangos"),
    ],
    "animals": [
        ("a dog", "dogs"), ("a cat", "cats"), ("a goat", "goats"), ("a rabbit", "rabbits"),
        ("a snake", "snakes"), ("a donkey", "donkeys"), ("a duck", "ducks"), ("a bear", "bears"),
    ],
    "pieces of furniture": [
        ("a table", "tables"), ("a chair", "chairs"), ("a bed", "beds"), ("a lamp", "lamps"),
        ("a sofa", "sofas"), ("a desk", "desks"), ("a bench", "benches"), ("a shelf", "shelves"),
    ],
}  # fmt: skip
NUMBERS = ("one", "two", "three", "four")
LEAST, MOST = 2, 10

PLACES = ["museum", "library", "market", "cinema", "beach", "bakery", "theatre", "swimming pool"]
DOINGS = [
    "reading in the park", "fixing a bicycle", "buying shoes at the shop", "waiting at the station",
    "having lunch at the office", "watering the garden", "walking the dog", "painting a fence",
    "talking on the telephone", "washing the car",
]  # fmt: skip
OPENS, CLOSES = 5, 22
STRETCHES = 6


def object_counting(rng: random.Random, *, things: int = 6, rows: int = 1500) -> list[Row]:
    """Things of two kinds to one of which the question is; columns `question`, `label` (a number).

    The label is a numeral from 2 to 10.
    """

    def make(label: str) -> Row | None:
        asked, other = rng.sample(sorted(COUNTED), 2)
        n_asked = rng.randint(2, things - 1)
        chosen = [(thing, True) for thing in rng.sample(COUNTED[asked], n_asked)]
        chosen += [(thing, False) for thing in rng.sample(COUNTED[other], things - n_asked)]
        rng.shuffle(chosen)
        counts = [rng.randint(1, 2) for _ in chosen]
        total = sum(n for n, (_, counted) in zip(counts, chosen, strict=True) if counted)
        if str(total) != label:
            return None
        names = [
            one if n == 1 else f"{NUMBERS[n - 1]} {many}"
            for n, ((one, many), _) in zip(counts, chosen, strict=True)
        ]
        listed = f"{', '.join(names[:-1])} and {names[-1]}"
        return {"question": f"I have {listed}. How many {asked} do I have?", "label": label}

    return generate(rng, make, [str(n) for n in range(LEAST, MOST + 1)], rows)


def temporal_sequences(rng: random.Random, *, rows: int = 1500) -> list[Row]:
    """A day full of sightings but for one stretch; columns `story`, `options`, `label`.

    The label is the letter of the stretch in which the person was not seen.
    """

    def make(label: str) -> Row:
        person, *witnesses = rng.sample(PEOPLE, STRETCHES)
        edges = sorted(rng.sample(range(OPENS, CLOSES + 1), STRETCHES))
        stretches = list(pairwise(edges))
        free = rng.choice(stretches)
        seen = [
            f"{witness} saw {person} {doing} from {_hour(start)} to {_hour(end)}."
            for witness, doing, (start, end) in zip(
                witnesses,
                rng.sample(DOINGS, len(stretches)),
                stretches,
                strict=True,
            )
            if (start, end) != free
        ]
        place = rng.choice(PLACES)
        shown = rng.sample([s for s in stretches if s != free], 3)
        shown.insert("abcd".index(label), free)
        story = (
            f"Today {person} went to the {place}. {person} woke up at {_hour(edges[0])}. "
            f"{' '.join(seen)} The {place} closed at {_hour(edges[-1])}. "
            f"Between which times could {person} have gone to the {place}?"
        )
        options = "\n".join(
            f"{letter}: {_hour(start)} to {_hour(end)}"
            for letter, (start, end) in zip("abcd", shown, strict=True)
        )
        return {"story": story, "options": options, "label": label}

    return generate(rng, make, "abcd", rows)


def _hour(hour: int) -> str:
    if hour == 12:
        return "noon"
    return f"{hour}am" if hour < 12 else f"{hour - 12}pm"
