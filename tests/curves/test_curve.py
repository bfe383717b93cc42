import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskeff.curves.curve import data_efficiency
from taskeff.errors import DataError

CAP = 5000


def test_golden_area_by_hand():
    # cap 16 puts n = 1, 4, 16 at x = 0, 1/2, 1; y = 0, 1/2, 1.
    curve = data_efficiency({0: 0.2, 4: 0.4, 16: 0.6}, cap=16, ceiling=None)
    assert curve.auc == pytest.approx(0.5)
    assert (curve.zero_shot, curve.ceiling, curve.status) == (0.2, 0.6, "measured")
    assert curve.labels_to_reach(0.5) == pytest.approx(4)
    assert curve.labels_to_reach(0.75) == pytest.approx(8)
    assert curve.labels_to_reach(0.0) == 0.0


def test_a_given_ceiling_scales_the_area():
    scores = {0: 0.2, 4: 0.4, 16: 0.6}
    assert data_efficiency(scores, cap=16, ceiling=1.0).auc == pytest.approx(0.25)
    assert data_efficiency(scores, cap=16, ceiling=1.0).labels_to_reach(0.6) is None


def test_running_maximum_and_carried_tail():
    curve = data_efficiency({0: 0.5, 4: 0.7, 8: 0.6}, cap=16, ceiling=0.7)
    assert curve.y.tolist() == pytest.approx([0, 1, 1, 1])
    assert [point.status for point in curve.points] == ["measured"] * 3 + ["carried"]
    assert curve.points[2].score == 0.6
    assert curve.carried_share == pytest.approx(0.25 / curve.auc)
    assert curve.status == "carried"


def test_short_curves_say_so():
    assert data_efficiency({0: 0.1, 3: 0.5}, cap=16, ceiling=None).status == "short"
    assert data_efficiency({0: 0.1, 4: 0.5}, cap=16, ceiling=None).status == "carried"


def test_imputed_points_are_marked():
    curve = data_efficiency({0: 0.1, 4: 0.2, 16: 0.5}, cap=16, ceiling=None, imputed={4})
    assert curve.status == "imputed"
    # An imputed tail rests on a model of the whole curve: the task is not left out as short.
    scores = {0: 0.1, 3: 0.2, 16: 0.5}
    assert data_efficiency(scores, cap=16, ceiling=None, imputed={16}).status == "imputed"


def test_seeds_are_averaged_and_their_spread_kept():
    curve = data_efficiency({0: 0.1, 4: [0.2, 0.4], 16: [0.5]}, cap=16, ceiling=None)
    assert curve.auc == data_efficiency({0: 0.1, 4: 0.3, 16: 0.5}, cap=16, ceiling=None).auc
    assert [(p.seeds, p.spread) for p in curve.points][1:] == [
        (2, pytest.approx(0.02**0.5)),
        (1, None),
    ]
    assert curve.to_dict()["points"][1]["spread"] == curve.points[1].spread


def test_published_mode_drops_small_budgets_and_carries_the_grid():
    scores = {0: 0.3, 8: 0.9, 50: 0.2, 500: 0.5, 10000: 0.99}
    curve = data_efficiency(scores, cap=CAP, ceiling=0.4, mode="published")
    assert [p.budget for p in curve.points] == [0, 50, 100, 200, 500, 1000, 2500, 5000]
    assert curve.ceiling == 0.5
    assert curve.y.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    knee = (math.log(500) + math.log(200)) / 2 / math.log(CAP)
    assert curve.auc == pytest.approx(1 - knee)


def test_published_mode_without_zero_shot_starts_at_its_first_budget():
    curve = data_efficiency({50: 0.2, 5000: 0.4}, cap=CAP, ceiling=None, mode="published")
    assert curve.x[0] == pytest.approx(math.log(50) / math.log(CAP))
    assert curve.zero_shot == 0.2


@settings(deadline=None)
@given(st.floats(0.05, 20))
def test_area_of_a_power(p):
    budgets = np.unique(np.round(2 ** np.linspace(0, 12, 400))).astype(int)
    scores = {int(n): (math.log2(n) / 12) ** p for n in budgets}
    curve = data_efficiency({0: 0.0, **scores}, cap=4096, ceiling=1.0)
    # The first steps, 1-2-3-4 labels, are a twelfth of the axis wide.
    assert curve.auc == pytest.approx(1 / (1 + p), abs=0.05)


@settings(deadline=None)
@given(
    st.dictionaries(st.integers(1, CAP), st.floats(0, 1), min_size=1, max_size=9),
    st.floats(0, 0.9),
    st.sampled_from(["default", "published"]),
)
def test_curves_rise_from_0_and_cross_where_they_say(scores, zero_shot, mode):
    scores = {0: zero_shot, **scores, CAP: 0.95}
    curve = data_efficiency(scores, cap=CAP, ceiling=1.0, mode=mode)
    assert curve.y[0] == 0 and np.all(np.diff(curve.y) >= 0) and np.all(curve.y <= 1)
    assert 0 <= curve.auc <= 1
    found = [curve.labels_to_reach(s) for s in np.linspace(0.05, 1, 20)]
    reached = [n for n in found if n is not None]
    assert reached == sorted(reached) and None not in found[: len(reached)]
    for share, n in zip(np.linspace(0.05, 1, 20), reached):
        x = math.log(max(n, 1)) / math.log(CAP)
        if n > 1:
            assert np.interp(x, curve.x, curve.y) == pytest.approx(share, abs=1e-6)


@settings(deadline=None)
@given(st.permutations([(0, 0.1), (50, 0.3), (100, 0.2), (5000, 0.9)]))
def test_order_of_rows_does_not_matter(rows):
    expected = data_efficiency(dict(sorted(rows)), cap=CAP, ceiling=None).auc
    assert data_efficiency(dict(rows), cap=CAP, ceiling=None).auc == expected


@pytest.mark.parametrize(
    ("scores", "ceiling", "said"),
    [
        ({0: 0.1, 50: 1.2}, None, "budget 50"),
        ({0: 0.1, 50: float("nan")}, None, "budget 50"),
        ({0: 0.1, -5: 0.2}, None, "budget -5"),
        ({0: 0.1}, None, "budget 0: nothing else is measured"),
        ({50: 0.1, 100: 0.2}, None, "no score at budget 0"),
        ({0: 0.1, 50: 0.1}, None, "budgets 0 to 5000: .* no room"),
        ({0: 0.1, 50: [0.2, 1.2]}, None, "budget 50"),
        ({0: 0.1, 50: []}, None, "budget 50: no score"),
        ({0: 0.1, 50: 0.6}, 0.5, "budget 50: the ceiling 0.5 is below the best score 0.6"),
        ({0: 0.1, 50: 0.6}, 1.5, "ceiling 1.5"),
        ({}, None, "no score"),
    ],
)
def test_bad_scores_name_the_row(scores, ceiling, said):
    with pytest.raises(DataError, match=said) as caught:
        data_efficiency(scores, cap=CAP, ceiling=ceiling, name="mytask")
    assert "mytask" in str(caught.value)


def test_a_share_outside_the_range_is_refused():
    curve = data_efficiency({0: 0.1, 50: 0.2}, cap=CAP, ceiling=None)
    with pytest.raises(DataError, match=r"1\.5"):
        curve.labels_to_reach(1.5)


def test_to_dict_is_json_and_complete():
    import json

    found = data_efficiency({0: 0.1, 50: 0.2}, cap=CAP, ceiling=None, name="t").to_dict()
    assert json.loads(json.dumps(found)) == found
    assert [p["status"] for p in found["points"]] == ["measured", "measured", "carried"]
