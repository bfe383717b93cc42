"""The bundled offline suite: task files like a user's own, whose rows come from a builder.

A builder turns data that an installed package carries, or a rule, into rows. Task files name
builders by their key in `BUILDERS`; nothing in a task file is ever imported.
"""

from __future__ import annotations

import difflib
import inspect
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from taskeff.errors import DataError
from taskeff.tasks.suite import (
    digits,
    geography,
    grammar,
    language,
    logic,
    puzzles,
    schedules,
    words,
)

Builder = Callable[..., list[dict[str, str]]]

BUILDERS: dict[str, Builder] = {
    "adjective_order": puzzles.adjective_order,
    "airports": geography.airports,
    "boolean_expressions": logic.boolean_expressions,
    "cldr_phrases": language.cldr_phrases,
    "coloured_objects": puzzles.coloured_objects,
    "common_words": words.common_words,
    "digits": digits.digits,
    "first_names": words.first_names,
    "object_counting": schedules.object_counting,
    "part_of_speech": grammar.part_of_speech,
    "shuffled_objects": puzzles.shuffled_objects,
    "syllogisms": logic.syllogisms,
    "temporal_sequences": schedules.temporal_sequences,
    "vader_sentiment": words.vader_sentiment,
    "verb_forms": grammar.verb_forms,
    "web_of_lies": logic.web_of_lies,
    "weekdays": puzzles.weekdays,
    "word_language": language.word_language,
}

FOLDER = Path(__file__).parent


def build(name: str, seed: int, **args: Any) -> list[dict[str, str]]:
    """All rows of the data set `name`: distinct, in an order fixed by `seed`, columns of strings.

    `args` are the builder's own (a task file's `dataset_kwargs`). Raises DataError for an unknown
    name or argument, for values the builder cannot use, and for an optional package not installed.
    """
    if name not in BUILDERS:
        raise DataError(f"unknown builder {name!r}{_nearest(name, BUILDERS)}")
    builder, rng = BUILDERS[name], random.Random(seed)
    try:
        bound = inspect.signature(builder).bind(rng, **args)
    except TypeError as error:
        known = list(inspect.signature(builder).parameters)[1:]
        raise DataError(
            f"builder {name!r}: {error}; its arguments are: {', '.join(known) or 'none'}"
        ) from error
    try:
        return builder(*bound.args, **bound.kwargs)
    except ModuleNotFoundError as error:
        raise DataError(
            f"builder {name!r} needs the package {error.name!r}: pip install 'taskeff[demo]'"
        ) from error
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(f"builder {name!r} cannot use {args}: {error}") from error
    finally:
        _forget_word_counts()


def _forget_word_counts() -> None:
    """Drop the whole languages that wordfreq keeps for ever: 0.17 GB in the demo's driver."""
    if "wordfreq" in sys.modules:
        from wordfreq import get_frequency_dict, get_frequency_list

        get_frequency_list.cache_clear()
        get_frequency_dict.cache_clear()


def suite_tasks() -> list[str]:
    """Names of the bundled tasks, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def suite_path(name: str) -> Path:
    """The task file of a bundled task. Raises DataError for an unknown name."""
    if name not in suite_tasks():
        raise DataError(f"unknown bundled task {name!r}{_nearest(name, suite_tasks())}")
    return FOLDER / f"{name}.yaml"


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"
