"""Forms and classes of English words (lemminflect), commonest words first (wordfreq)."""

from __future__ import annotations

import random
from collections.abc import Iterator

from taskeff.errors import DataError
from taskeff.tasks.suite.sampling import Row, balanced

VOCABULARY = 25_000
# Zipf scale (3 is once in a million words): keeps forms that people write, "made" but not "overed".
WRITTEN = 2.5

CLASSES = {"NOUN": "noun", "VERB": "verb", "ADJ": "adjective", "ADV": "adverb"}
FORMS = {"past": "VBD", "ing": "VBG"}


def part_of_speech(rng: random.Random, *, per_label: int = 450) -> list[Row]:
    """Words that belong to one class only; columns `word`, `label`."""
    from lemminflect import getAllLemmas

    rows: list[Row] = []
    for word in _vocabulary():
        classes = list(getAllLemmas(word))
        if len(classes) == 1 and classes[0] in CLASSES:
            rows.append({"word": word, "label": CLASSES[classes[0]]})
    return balanced(rng, rows, per_label)


def verb_forms(rng: random.Random, *, form: str, rows: int = 1600) -> list[Row]:
    """The commonest verbs with one inflected form; columns `verb`, `label` (the form).

    `form` is `past` or `ing`. Verbs with a second accepted spelling are left out. Raises DataError
    for another form.
    """
    from lemminflect import getAllInflections, getAllLemmas
    from wordfreq import zipf_frequency

    if form not in FORMS:
        raise DataError(f"form: {form!r} is not one of {', '.join(FORMS)}")
    found: list[Row] = []
    for verb in _vocabulary():
        if getAllLemmas(verb, "VERB").get("VERB") != (verb,):
            continue
        inflected = getAllInflections(verb, "VERB").get(FORMS[form], ())
        if len(inflected) == 1 and zipf_frequency(inflected[0], "en") >= WRITTEN:
            found.append({"verb": verb, "label": inflected[0]})
    found = found[:rows]
    rng.shuffle(found)
    return found


def _vocabulary() -> Iterator[str]:
    """Common English words, commonest first."""
    from wordfreq import top_n_list

    for word in top_n_list("en", VOCABULARY):
        if len(word) > 2 and word.isascii() and word.isalpha():
            yield word
