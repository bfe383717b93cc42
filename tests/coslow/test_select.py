"""Which rows are drawn for labelling."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskeff.coslow.select import select
from taskeff.errors import DataError


def rising(n):
    return [i / n for i in range(n)]


def test_low_draws_from_the_lowest_decile():
    found = select(rising(1000), n=32, quantile=0.1, seed=7)
    assert len(set(found.indices)) == 32
    assert max(found.indices) < 100
    assert (found.candidates, found.quantile) == (100, 0.1)
    assert list(found.indices) == sorted(found.indices)


def test_a_small_pool_widens_the_quantile_and_says_so():
    found = select(rising(64), n=32)
    assert found.indices == tuple(range(32))
    assert (found.candidates, found.quantile) == (32, 0.5)


@given(st.integers(32, 400), st.integers(0, 9), st.sampled_from(["low", "random"]))
@settings(max_examples=40, deadline=None)
def test_any_pool_that_holds_n_is_enough(size, seed, strategy):
    values = rising(size)
    found = select(values, seed=seed, strategy=strategy)
    assert len(set(found.indices)) == 32
    assert found == select(values, seed=seed, strategy=strategy)


def test_seeds_draw_differently():
    assert select(rising(1000), seed=0).indices != select(rising(1000), seed=1).indices


def test_random_takes_the_whole_pool():
    values = rising(1000)[::-1]
    assert min(select(values, strategy="random").indices) < 500


def test_rows_without_an_answer_are_never_drawn():
    values = [None if i % 2 else i / 100 for i in range(80)]
    for strategy in ("low", "random"):
        assert all(i % 2 == 0 for i in select(values, strategy=strategy).indices)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_confidence_that_is_no_number_names_its_row(value):
    with pytest.raises(DataError, match="pool row 3: confidence"):
        select([0.1, 0.2, 0.3, value, *rising(40)])


def test_too_few_rows():
    with pytest.raises(DataError, match="the pool has 31 rows with a confidence, fewer"):
        select([*rising(31), None, None])
    with pytest.raises(DataError, match="the pool is empty"):
        select([])


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"n": 0}, "n is 0"),
        ({"quantile": 0}, "quantile 0"),
        ({"quantile": 1.5}, "quantile 1.5"),
        ({"strategy": "highest"}, "strategy 'highest': use low or random"),
    ],
)
def test_bad_settings(settings_, message):
    with pytest.raises(DataError, match=message):
        select(rising(100), **settings_)
