import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskeff.curves.curve import data_efficiency
from taskeff.errors import EstimateError
from taskeff.estimate.shapes import Beta, Power, fit_shape, shape_from_dict

areas = st.floats(0.05, 0.95)
shapes = st.one_of(st.just(Power()), st.floats(0.3, 40).map(Beta))
X = np.linspace(0, 1, 4001)


@given(shapes, areas)
def test_area_is_the_area(shape, area):
    y = shape.value(X, area)
    assert np.sum((y[1:] + y[:-1]) / 2) / 4000 == pytest.approx(area, abs=5e-3)


@given(shapes, areas)
def test_monotone_from_0_to_1(shape, area):
    y = shape.value(X, area)
    assert y[0] == 0 and y[-1] == 1
    assert np.all(np.diff(y) >= -1e-12)


@given(shapes, areas, st.floats(0.02, 0.98))
def test_inverse_undoes_value(shape, area, share):
    x = float(shape.inverse(share, area))
    assert 0 <= x <= 1
    # Where the curve is a wall in x, float64 cannot hold the x that the share asks for.
    near = shape.value(np.array([np.nextafter(x, 0), x, np.nextafter(x, 1)]), area)
    assert near[0] - 1e-6 <= share <= near[2] + 1e-6


@given(shapes, areas, areas, st.floats(0.05, 0.95))
def test_larger_areas_need_fewer_labels(shape, one, other, share):
    low, high = sorted((one, other))
    assert shape.inverse(share, high) <= shape.inverse(share, low) + 1e-12


@given(shapes, areas)
def test_edges(shape, area):
    assert shape.inverse(0.0, area) == 0 and shape.inverse(1.0, area) == 1
    assert np.isnan(shape.inverse(1.01, area))
    assert np.all(np.isfinite(shape.value(X, 0.0))) and np.all(np.isfinite(shape.value(X, 1.0)))


@given(areas, st.floats(0.05, 1))
def test_power_is_the_published_formula(area, target):
    published = 5000 ** (target ** (area / (1 - area)))
    assert 5000 ** float(Power().inverse(target, area)) == pytest.approx(published, rel=1e-12)


@pytest.mark.parametrize("concentration", [0.8, 4.0, 15.0])
def test_fit_finds_the_concentration_again(concentration):
    x = np.linspace(0, 1, 25)
    budgets = np.round(4096**x).astype(int)
    curves = []
    for area, top in ((0.3, 0.9), (0.5, 0.6), (0.7, 1.0)):
        x_measured = np.log2(budgets[1:]) / 12
        y = top * Beta(concentration).value(x_measured, area)
        scores = dict(zip(budgets[1:].tolist(), y.tolist()))
        curves.append(data_efficiency({0: 0.0, **scores}, cap=4096, ceiling=1.0))
    found = fit_shape(curves)
    assert isinstance(found, Beta)
    assert found.concentration == pytest.approx(concentration, rel=0.1)
    assert found.roughness < 0.02


def test_fit_needs_a_rise():
    flat = data_efficiency({0: 0.5, 50: 0.5}, cap=100, ceiling=1.0)
    with pytest.raises(EstimateError, match="rises"):
        fit_shape([flat])


def test_dictionaries_round_trip_and_refuse():
    shape = Beta(3.0, 0.05, (50, 100), (0.06, 0.04), 0.01)
    assert shape_from_dict("beta", shape.to_dict()) == shape
    assert shape_from_dict("power", {}) == Power()
    with pytest.raises(EstimateError, match="'spline'"):
        shape_from_dict("spline", {})
    with pytest.raises(EstimateError, match="concentration"):
        shape_from_dict("beta", {})
    with pytest.raises(EstimateError, match="-1"):
        Beta(-1.0)
    with pytest.raises(EstimateError, match="1 scatters for 2 budgets"):
        Beta(3.0, 0.05, (50, 100), (0.06,))


def test_scatter_is_each_budgets_own():
    shape = Beta(3.0, 0.05, (50, 200), (0.06, 0.04))
    assert shape.score_scatter([50, 100, 200, 5000]).tolist() == pytest.approx(
        [0.06, 0.05, 0.04, 0.04]
    )
    assert Beta(3.0, 0.05).score_scatter([7]).tolist() == [0.05]
    spread = Beta(3.0, 0.04, seed_spread=0.03)
    assert spread.score_scatter([50]).tolist() == pytest.approx([0.05])


def test_scores_that_fall_scatter_more_than_their_running_maximum():
    """Every other curve dips at 200 labels: the running maximum does not show it, scores do."""
    curves = []
    for i in range(20):
        x = np.log2([50, 100, 200, 500, 1000, 5000]) / np.log2(5000)
        y = Beta(4.0).value(x, 0.3 + 0.02 * i)
        y[2] -= 0.25 * (i % 2)
        scores = dict(zip((50, 100, 200, 500, 1000, 5000), y.clip(0).tolist()))
        curves.append(data_efficiency({0: 0.0, **scores}, cap=5000, ceiling=1.0))
    shape = fit_shape(curves)
    assert shape.budgets[2] == 200
    assert shape.scatter[2] == max(shape.scatter) > 1.5 * shape.roughness
