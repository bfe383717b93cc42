"""CoS-Low from a matrix: values by hand, intervals, exclusions."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskeff.coslow.statistic import coslow, mean_cosine, weighted_median
from taskeff.errors import DataError


def cosines_of(n=12, width=5, seed=0, lean=0.5):
    vectors = np.random.default_rng(seed).normal(lean, 1, (n, width))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors @ vectors.T


def test_median_and_mean_are_numpys():
    matrix = cosines_of()
    pairs = matrix[np.triu_indices(12, 1)]
    found = coslow(matrix)
    assert found.median == np.median(pairs)
    assert found.mean == pytest.approx(pairs.mean(), abs=1e-15)
    assert found.n_examples == 12
    assert found.balanced is None


@given(st.integers(2, 20), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_closed_form_of_the_mean(n, seed):
    vectors = np.random.default_rng(seed).normal(size=(n, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    closed = (np.linalg.norm(vectors.sum(0)) ** 2 - n) / (n * (n - 1))
    assert mean_cosine(vectors @ vectors.T) == pytest.approx(closed, abs=1e-12)


@given(st.permutations(range(10)))
@settings(max_examples=20, deadline=None)
def test_order_of_examples_does_not_matter(order):
    matrix = cosines_of(10)
    assert coslow(matrix[np.ix_(order, order)], draws=1).median == coslow(matrix, draws=1).median


def test_interval_is_seeded_and_narrows_with_the_level():
    matrix = cosines_of(32)
    found, wide = coslow(matrix, level=0.8), coslow(matrix, level=0.95)
    assert coslow(matrix, level=0.8) == found
    assert coslow(matrix, level=0.8, seed=1).interval != found.interval
    assert wide.interval[0] < found.interval[0] < found.median < found.interval[1]
    assert found.interval[1] < wide.interval[1]


def test_own_copies_do_not_raise_the_interval():
    # Orthogonal gradients: with copies' cosines of 1 left in, the mean's interval would be > 0.
    found = coslow(np.eye(16))
    assert found.interval == (0.0, 0.0)
    assert found.mean_interval == (0.0, 0.0)


def test_interval_covers_far_more_than_independent_pairs_would():
    matrix = cosines_of(32)
    pairs = matrix[np.triu_indices(32, 1)]
    low, high = coslow(matrix, level=0.8).mean_interval
    independent = 2 * 1.2816 * pairs.std() / np.sqrt(len(pairs))
    assert high - low > 2 * independent


def test_coverage_of_the_mean_on_fresh_draws():
    truth = mean_cosine(cosines_of(1500, seed=99))
    hits = 0
    for seed in range(40):
        low, high = coslow(cosines_of(32, seed=seed), draws=100).mean_interval
        hits += low <= truth <= high
    assert 0.6 < hits / 40 < 0.98


def test_balanced_by_hand():
    # Label a: 6 examples that agree wholly; label b: 2; across, cosine -1.
    labels = ["a"] * 6 + ["b"] * 2
    side = np.array([1.0] * 6 + [-1.0] * 2)
    matrix = np.outer(side, side)
    found = coslow(matrix, labels=labels)
    assert found.median == 1.0  # 16 of 28 pairs agree
    assert found.balanced == 0.0  # balanced, half agree and half do not
    assert coslow(matrix, labels=["a"] * 8).balanced == found.median


def test_weighted_median_with_equal_weights_is_the_median():
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 10):
        values = rng.normal(size=n)
        assert weighted_median(values, np.full(n, 3.0)) == pytest.approx(np.median(values))


def test_examples_without_a_gradient_are_left_out_by_name(caplog):
    matrix = cosines_of(10)
    matrix[3, :] = matrix[:, 3] = np.nan
    ids = [f"row-{i}" for i in range(10)]
    with caplog.at_level(logging.WARNING):
        found = coslow(matrix, ids=ids)
    kept = [i for i in range(10) if i != 3]
    assert found.median == coslow(matrix[np.ix_(kept, kept)]).median
    assert found.excluded == ("row-3",)
    assert found.n_examples == 9
    assert "row-3" in caplog.text


def test_duplicates_are_reported(caplog):
    matrix = cosines_of(10)
    matrix[5] = matrix[2]
    matrix[:, 5] = matrix[:, 2]
    with caplog.at_level(logging.WARNING):
        found = coslow(matrix, ids=[f"row-{i}" for i in range(10)])
    assert found.duplicates == (("row-2", "row-5"),)
    assert "row-2 = row-5" in caplog.text


@pytest.mark.parametrize(
    ("matrix", "settings_", "message"),
    [
        (cosines_of(7), {}, "at least 8 examples with a gradient, there are 7; label more"),
        (np.full((9, 9), np.nan), {}, r"there are 0 \(left out: 0, 1, 2"),
        (cosines_of(9)[:8], {}, "square matrix"),
        (cosines_of(9), {"labels": ["a"]}, "1 labels for 9 examples"),
        (cosines_of(9), {"ids": ["a"]}, "1 ids for 9 examples"),
        (cosines_of(9), {"level": 80}, "level 80 is no share"),
    ],
)
def test_bad_input(matrix, settings_, message):
    with pytest.raises(DataError, match=message):
        coslow(matrix, **settings_)
