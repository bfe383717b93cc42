"""Metric name -> function: how answers become a score in [0, 1].

`exact_match`, `accuracy` and `f1` compare answers after `normalise`; `token_f1`, `rouge_l` and
`bleu` read the whole answer. scikit-learn, rouge-score and sacrebleu are imported when first used.
"""

from __future__ import annotations

import difflib
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from taskeff.errors import ConfigError, DataError

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """First line, stripped, lower-cased, without a trailing full stop (arXiv 2512.24991).

    In Unicode's form NFC: an accent may have been typed as a character of its own.
    """
    lines = unicodedata.normalize("NFC", text).strip().splitlines()
    return lines[0].strip().lower().removesuffix(".").strip() if lines else ""


def choice_of(label: str, choices: Sequence[str]) -> str | None:
    """The one of `choices` that `label` is in Unicode's form NFC, as it is spelled there."""
    if label in choices:
        return label
    wanted = unicodedata.normalize("NFC", label)
    return next((c for c in choices if unicodedata.normalize("NFC", c) == wanted), None)


def exact_match(prediction: str, target: str) -> float:
    """1 where the normalised answers are the same."""
    return float(normalise(prediction) == normalise(target))


def token_f1(prediction: str, target: str) -> float:
    """The F1 of shared words, counted, as SQuAD scores answers (Rajpurkar et al., 2016).

    Case, punctuation and the articles a, an, the do not count.
    """
    predicted, wanted = _squad_words(prediction), _squad_words(target)
    if not predicted or not wanted:
        return float(predicted == wanted)
    shared = (Counter(predicted) & Counter(wanted)).total()
    return 2 * shared / (len(predicted) + len(wanted))


def rouge_l(prediction: str, target: str) -> float:
    """The F1 of the longest common subsequence of words, unstemmed (Lin, 2004; rouge-score)."""
    return float(_rouge_scorer().score(target, prediction)["rougeL"].fmeasure)


def macro_f1(predictions: Sequence[str], targets: Sequence[str]) -> float:
    """The mean F1 over the labels that occur among the targets (scikit-learn).

    An answer that is no such label counts against the recall of the row's true label, without
    being a class of its own.
    """
    from sklearn.metrics import f1_score

    wanted = [normalise(target) for target in targets]
    return float(
        f1_score(
            wanted,
            [normalise(prediction) for prediction in predictions],
            labels=sorted(set(wanted)),
            average="macro",
            zero_division=0,  # pyright: ignore[reportArgumentType] - the stub knows only str
        )
    )


def bleu(predictions: Sequence[str], targets: Sequence[str]) -> float:
    """Corpus BLEU with sacrebleu's own tokenisation and smoothing, as a share of 100."""
    from sacrebleu import corpus_bleu

    # Rounding inside sacrebleu puts a perfect corpus a hair above 100.
    return min(1.0, float(corpus_bleu(list(predictions), [list(targets)]).score) / 100)


PER_EXAMPLE: dict[str, Callable[[str, str], float]] = {
    "exact_match": exact_match,
    "accuracy": exact_match,
    "token_f1": token_f1,
    "rouge_l": rouge_l,
}
"""Metrics that are the mean of one number per example."""
CORPUS: dict[str, Callable[[Sequence[str], Sequence[str]], float]] = {
    "f1": macro_f1,
    "bleu": bleu,
}
"""Metrics of all examples together."""
METRICS = (*PER_EXAMPLE, *CORPUS)
FIRST_LINE = ("exact_match", "accuracy", "f1")
"""Metrics that read an answer's first line alone."""


def score(metric: str, predictions: Sequence[str], targets: Sequence[str]) -> float:
    """The score of all `predictions`, in [0, 1].

    Raises:
        ConfigError: no such metric.
        DataError: no predictions, or more or fewer than targets.
    """
    check_metric(metric)
    _check_pairs(predictions, targets)
    if metric in CORPUS:
        return CORPUS[metric](predictions, targets)
    values = per_example(metric, predictions, targets)
    return sum(values) / len(values)


def per_example(metric: str, predictions: Sequence[str], targets: Sequence[str]) -> list[float]:
    """One value in [0, 1] per example, for metrics that are the mean of those.

    Raises:
        ConfigError: no such metric, or one of the whole corpus (`f1`, `bleu`).
        DataError: no predictions, or more or fewer than targets.
    """
    check_metric(metric)
    if metric in CORPUS:
        raise ConfigError(
            f"metric {metric!r} scores all examples together; "
            f"use one of {', '.join(PER_EXAMPLE)} for a value per example"
        )
    _check_pairs(predictions, targets)
    function = PER_EXAMPLE[metric]
    return [function(p, t) for p, t in zip(predictions, targets, strict=True)]


def check_metric(metric: str) -> str:
    """`metric` itself.

    Raises:
        ConfigError: there is no such metric.
    """
    if metric not in METRICS:
        near = difflib.get_close_matches(metric, METRICS, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"metric {metric!r} is unknown; {hint}known: {', '.join(METRICS)}")
    return metric


def _check_pairs(predictions: Sequence[str], targets: Sequence[str]) -> None:
    if not targets or len(predictions) != len(targets):
        raise DataError(
            f"{len(predictions)} predictions for {len(targets)} targets; "
            "a score needs one prediction for each of at least one target"
        )


def _squad_words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


@lru_cache(maxsize=1)
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"])
