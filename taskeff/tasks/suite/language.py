"""Which language is this? Phrases of CLDR (babel) and words counted in the wild (wordfreq)."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

from taskeff.errors import DataError
from taskeff.tasks.suite.sampling import Row, balanced, unambiguous

LONGEST_PHRASE = 40
COMMON_WORDS = 1500
# A word this common in a second language cannot be told apart without a sentence around it.
SHARED_WORDS = 20_000


def cldr_phrases(
    rng: random.Random, *, languages: Mapping[str, str], per_label: int = 300
) -> list[Row]:
    """Names of languages, countries, scripts and currencies; columns `phrase`, `label`.

    `languages` maps a CLDR locale to its label. A phrase that two of them share is left out.
    Raises DataError for an unknown locale.
    """
    labelled = (
        (phrase, label) for code, label in languages.items() for phrase in _display_names(code)
    )
    return balanced(rng, unambiguous(labelled, "phrase"), per_label)


def _display_names(code: str) -> Iterator[str]:
    from babel import Locale, UnknownLocaleError

    try:
        locale = Locale.parse(code)
    except (UnknownLocaleError, ValueError) as error:
        raise DataError(f"languages: no CLDR locale {code!r}") from error
    for names in (locale.languages, locale.territories, locale.scripts, locale.currencies):
        for name in names.values():
            if len(name) <= LONGEST_PHRASE and not any(map(str.isdigit, name)):
                yield name


def word_language(
    rng: random.Random, *, languages: Mapping[str, str], per_label: int = 400
) -> list[Row]:
    """Common words of one of several languages; columns `word`, `label`.

    `languages` maps a wordfreq language to its label. Raises DataError for an unknown language.
    """
    from wordfreq import available_languages, top_n_list

    for code in languages:
        if code not in available_languages():
            raise DataError(f"languages: wordfreq has no language {code!r}")
    shared = {code: frozenset(top_n_list(code, SHARED_WORDS)) for code in languages}
    rows = [
        {"word": word, "label": label}
        for code, label in languages.items()
        for word in top_n_list(code, COMMON_WORDS)
        if len(word) > 2
        and word.isalpha()
        and not any(word in words for other, words in shared.items() if other != code)
    ]
    return balanced(rng, rows, per_label)
