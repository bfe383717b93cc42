"""Golden values worked by hand; each expected number is derived in a comment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskeff.errors import ConfigError, DataError
from taskeff.tasks.metrics import METRICS, PER_EXAMPLE, check_metric, normalise, per_example, score


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Positive", "positive"),
        ("  True.  ", "true"),
        ("\n\nyes\nbecause it is", "yes"),
        ("U.S.", "u.s"),
        ("wait...", "wait.."),
        ("yes .", "yes"),
        ("", ""),
        (" \n ", ""),
        (".", ""),
    ],
)
def test_normalise_is_the_published_one(text, expected):
    assert normalise(text) == expected


def test_exact_match_counts_normalised_equals():
    predictions = ["Yes.", "no", "maybe", "yes\nno"]
    assert score("exact_match", predictions, ["yes", "yes", "Maybe", "yes"]) == 0.75
    assert per_example("exact_match", predictions, ["yes", "yes", "Maybe", "yes"]) == [1, 0, 1, 1]


def test_accuracy_is_exact_match():
    pair = (["a", "b"], ["A.", "c"])
    assert score("accuracy", *pair) == score("exact_match", *pair) == 0.5


@pytest.mark.parametrize(
    ("prediction", "target", "expected"),
    [
        ("the cat sat", "a cat sat down", 0.8),  # 2 shared of 2 and of 3: 2*2/(2+3)
        ("The Cat!", "cat", 1.0),
        ("dog", "cat", 0.0),
        ("cat cat", "cat", 2 / 3),  # one of the two is shared: 2*1/(2+1)
        ("", "cat", 0.0),
        ("the", "a", 1.0),  # nothing but articles on either side
        ("U.S.A", "usa", 1.0),
        ("theatre", "atre", 0.0),  # an article is a word, not the start of one
    ],
)
def test_token_f1_is_squads(prediction, target, expected):
    assert score("token_f1", [prediction], [target]) == pytest.approx(expected)


def test_macro_f1_is_the_mean_over_the_targets_labels():
    # a: precision 1/2, recall 1/2 -> 1/2.  b: precision 1, recall 1/2 -> 2/3.
    # "junk" is no class of its own; it costs b its recall.
    predictions = ["a", "A.", "b", "junk"]
    targets = ["a", "b", "b", "a"]
    assert score("f1", predictions, targets) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_macro_f1_gives_a_rare_label_its_full_weight():
    # a: precision 9/10, recall 1 -> 18/19.  b is never answered -> 0.
    assert score("f1", ["a"] * 10, ["a"] * 9 + ["b"]) == pytest.approx(9 / 19)


def test_rouge_l_is_the_longest_common_subsequence():
    pytest.importorskip("rouge_score")
    # police ... the gunman = 3 in order ("police the gunman"): P = 3/4, R = 3/4 (Lin, 2004).
    assert score("rouge_l", ["police kill the gunman"], ["police killed the gunman"]) == 0.75
    # "the gunman" is the longest: 2 of 4 and of 4, though all but one word occurs.
    assert score("rouge_l", ["the gunman kill police"], ["police killed the gunman"]) == 0.5


def test_bleu_of_a_corpus():
    pytest.importorskip("sacrebleu")
    # Precisions of 1..4-grams are 5/6, 4/5, 3/4, 2/3 at equal length: the product is 1/3.
    predicted, target = ["the cat sat on the rug"], ["the cat sat on the mat"]
    assert score("bleu", predicted, target) == pytest.approx((1 / 3) ** 0.25)
    assert score("bleu", target, target) == 1.0


def test_a_perfect_answer_scores_one_by_every_metric():
    pytest.importorskip("rouge_score")
    pytest.importorskip("sacrebleu")
    answers = ["one two three four five", "six seven eight nine ten"]
    for metric in METRICS:
        assert score(metric, answers, answers) == 1.0


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=5))
def test_scores_stay_between_zero_and_one_and_are_means(pairs):
    predictions, targets = zip(*pairs, strict=True)
    for metric in ("exact_match", "token_f1", "f1"):
        assert 0 <= score(metric, predictions, targets) <= 1
    values = per_example("token_f1", predictions, targets)
    assert score("token_f1", predictions, targets) == pytest.approx(sum(values) / len(values))


@given(st.text(), st.text())
def test_token_f1_is_symmetric(left, right):
    assert score("token_f1", [left], [right]) == score("token_f1", [right], [left])


def test_an_unknown_metric_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="'exact-match' is unknown; did you mean 'exact_match'"):
        score("exact-match", ["a"], ["a"])
    with pytest.raises(ConfigError, match="known: exact_match, accuracy"):
        check_metric("zzz")


def test_corpus_metrics_have_no_value_per_example():
    with pytest.raises(ConfigError, match=f"use one of {', '.join(PER_EXAMPLE)}"):
        per_example("bleu", ["a"], ["a"])


@pytest.mark.parametrize(("predictions", "targets"), [([], []), (["a"], ["a", "b"])])
def test_predictions_and_targets_must_pair(predictions, targets):
    with pytest.raises(DataError, match=f"{len(predictions)} predictions for {len(targets)}"):
        score("exact_match", predictions, targets)
    with pytest.raises(DataError, match=f"{len(predictions)} predictions for {len(targets)}"):
        per_example("exact_match", predictions, targets)
