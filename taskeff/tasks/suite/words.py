"""Single words and names with a property people have judged or counted."""

from __future__ import annotations

import random
from pathlib import Path

from taskeff.tasks.suite.sampling import Row, balanced, generate, unambiguous

# Scores nearer to zero are words the raters disagreed on.
CLEAR_VALENCE = 1.0
PAIRED_WORDS = 20_000


def vader_sentiment(rng: random.Random, *, per_label: int = 1200) -> list[Row]:
    """Words of the VADER lexicon; columns `word`, `label` (positive or negative)."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    lexicon = SentimentIntensityAnalyzer().lexicon
    rows = (
        {"word": word, "label": "positive" if valence > 0 else "negative"}
        for word, valence in lexicon.items()
        if abs(valence) >= CLEAR_VALENCE and len(word) > 2 and word.isascii() and word.isalpha()
    )
    return balanced(rng, rows, per_label)


def first_names(rng: random.Random, *, per_label: int = 850) -> list[Row]:
    """First names of the 1990 US census borne by one sex only; columns `name`, `label`."""
    import names

    folder = Path(names.__file__).parent
    labelled = (
        (line.split()[0].capitalize(), sex)
        for sex in ("female", "male")
        for line in (folder / f"dist.{sex}.first").read_text("utf-8").splitlines()
    )
    return balanced(rng, unambiguous(labelled, "name"), per_label)


def common_words(rng: random.Random, *, gap: float = 1.0, rows: int = 1500) -> list[Row]:
    """Pairs of English words, one used more often; columns `first`, `second`, `label`.

    The label is `first` or `second`; `gap` is the least difference on the Zipf scale (1 is ten
    times as often).
    """
    from wordfreq import top_n_list, zipf_frequency

    words = [
        w for w in top_n_list("en", PAIRED_WORDS) if len(w) > 3 and w.isascii() and w.isalpha()
    ]
    zipf = {word: zipf_frequency(word, "en") for word in words}

    def make(label: str) -> Row | None:
        rare, common = sorted(rng.sample(words, 2), key=zipf.__getitem__)
        if zipf[common] - zipf[rare] < gap:
            return None
        first, second = (common, rare) if label == "first" else (rare, common)
        return {"first": first, "second": second, "label": label}

    return generate(rng, make, ("first", "second"), rows)
