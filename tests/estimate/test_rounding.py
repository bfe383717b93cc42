from hypothesis import given
from hypothesis import strategies as st

from taskeff.estimate.advice import Prices, outlook
from taskeff.estimate.budget import predict
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.rounding import high_end, low_end, whole
from taskeff.estimate.words import headline, spent

CAP = 5000
labels = st.floats(0, CAP)


@given(labels)
def test_an_interval_has_two_figures_and_encloses_what_was_computed(n):
    low, high = low_end(n), high_end(n, CAP)
    assert low <= n + 1e-6 and n - 1e-6 <= high <= CAP
    assert all(set(str(end)[2:]) <= {"0"} for end in (low, high))
    assert high - low <= max(1, 0.1 * n + 1e-6)


@given(st.integers(1, CAP), st.floats(-1e-9, 1e-9))
def test_a_whole_number_stays_what_it_is(n, noise):
    assert whole(n + noise) == n


@given(labels, labels)
def test_a_number_within_its_interval_is_within_it_once_rounded(one, other):
    low, high = sorted((one, other))
    assert low_end(low) <= whole(low) and whole(low) <= whole(high) <= high_end(high, CAP)


def test_the_labels_of_the_headline_are_those_of_the_cost():
    found = predict(Calibration.load("llama-3.1-8b-instruct"), 0.65)
    cost = outlook(found, prices=Prices())
    assert headline(found).startswith("About 307 labels")
    assert spent(cost["cost"], cost["prices"]) == "307 more labels"
