"""Kernel regression from a matrix: closed forms against refits, curve, doubtful labels, errors."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta
from sklearn.metrics import f1_score

from taskeff.coslow.kernel import RIDGE, answer_kernel, kernel_pilot
from taskeff.errors import DataError

ANSWERS = ("red", "green", "blue")


def rows(n=24, c=3, seed=0, width=6, noise=0.3):
    """Gradients of n rows' answers, and labels that follow them but for some noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width))
    teacher = np.random.default_rng(99).normal(size=(width, c))
    own = (x @ teacher + noise * rng.normal(size=(n, c))).argmax(1)
    common = rng.normal(size=(n, 1, 5))
    spread = np.einsum("iw,cd->icwd", x, np.eye(c)).reshape(n, c, -1)
    return np.concatenate([spread, common.repeat(c, axis=1)], axis=2), own


def gram(gradients):
    flat = gradients.reshape(len(gradients) * gradients.shape[1], -1)
    return flat @ flat.T


def pilot(n=24, seed=0, **given):
    gradients, own = rows(n, seed=seed)
    return kernel_pilot(gram(gradients), [ANSWERS[k] for k in own], ANSWERS, **given)


@pytest.mark.parametrize("ridge", [0.001, 0.1, 1.0])
@pytest.mark.parametrize(("n", "c"), [(8, 2), (24, 3), (15, 7)])
def test_leave_one_out_equals_refits_without_each_row(n, c, ridge):
    gradients, own = rows(n, c)
    centred = gradients - gradients.mean(1, keepdims=True)
    matrix = gram(centred)
    matrix /= np.trace(matrix) / (n * c)
    targets = np.eye(c)[own] - 1 / c
    expected = np.zeros((n, c))
    for i in range(n):
        mine = np.arange(i * c, (i + 1) * c)
        others = np.setdiff1d(np.arange(n * c), mine)
        regularised = matrix[np.ix_(others, others)] + ridge * np.eye(len(others))
        weights = np.linalg.solve(regularised, targets.reshape(-1)[others])
        expected[i] = matrix[np.ix_(mine, others)] @ weights
    kernel = answer_kernel(gram(gradients), own)
    np.testing.assert_allclose(kernel.left_out_scores(ridge), expected, atol=1e-8, rtol=0)
    one_by_one = [
        kernel.scores(np.delete(np.arange(n), i), np.array([i]), ridge)[0] for i in range(n)
    ]
    np.testing.assert_allclose(one_by_one, expected, atol=1e-8, rtol=0)


@given(st.permutations(range(24)))
@settings(max_examples=10, deadline=None)
def test_the_order_of_rows_only_permutes(order):
    gradients, own = rows()
    straight = answer_kernel(gram(gradients), own).left_out_scores()
    shuffled = answer_kernel(gram(gradients[order]), own[order]).left_out_scores()
    np.testing.assert_allclose(shuffled, straight[order], atol=1e-9)


def test_only_differences_between_a_rows_answers_count_and_no_unit():
    gradients, own = rows()
    shift = np.random.default_rng(1).normal(size=(len(own), 1, gradients.shape[2]))
    straight = answer_kernel(gram(gradients), own).left_out_scores()
    moved = answer_kernel(gram(30 * (gradients + shift)), own).left_out_scores()
    np.testing.assert_allclose(moved, straight, atol=1e-9)


def test_what_the_predictions_say_is_sklearns():
    _, own = rows(40)
    found = pilot(40)
    label = [ANSWERS[k] for k in own]
    assert found.accuracy == np.mean(np.array(found.predicted) == label)
    assert found.macro_f1 == pytest.approx(f1_score(label, found.predicted, average="macro"))
    table = np.zeros((3, 3), int)
    for one, other in zip(label, found.predicted, strict=True):
        table[ANSWERS.index(one), ANSWERS.index(other)] += 1
    assert np.array_equal(found.confusion, table)
    assert found.interval[0] < found.accuracy < found.interval[1]
    # Wilson's is within a row of Clopper and Pearson's, which scipy gives from the beta law.
    hits = table.trace()
    exact = beta.ppf([0.1, 0.9], [hits, hits + 1], [41 - hits, 40 - hits])
    np.testing.assert_allclose(found.interval, exact, atol=1 / 40)
    assert dict(found.sensitivity)[RIDGE] == found.accuracy
    assert [(m < 0) for m in found.margins] == [p != t for p, t in zip(found.predicted, label)]


def test_the_curve_doubles_and_ends_with_leave_one_out():
    found = pilot(40)
    assert [point.n for point in found.curve] == [4, 8, 16, 32, 39]
    assert found.curve[-1].accuracy == found.accuracy
    assert found.curve[0].accuracy < found.curve[-1].accuracy
    assert pilot(40) == found
    assert pilot(40, seed=0, subsets=20).curve[0] != found.curve[0]
    assert json.loads(json.dumps(found.to_dict()))["curve"][1]["n"] == 8


@pytest.mark.parametrize("point", [1, 3])
def test_the_curves_error_is_that_of_fresh_rows(point):
    """The mean stated error against the spread of the estimate over data sets."""
    found = [pilot(32, seed=seed, subsets=30).curve[point] for seed in range(60)]
    spread = np.std([one.accuracy for one in found], ddof=1)
    assert 0.8 < np.mean([one.error for one in found]) / spread < 1.5


def test_wrong_labels_are_named_first():
    gradients, own = rows(60, noise=0.0)
    ids = [f"row-{i}" for i in range(60)]
    right = kernel_pilot(gram(gradients), [ANSWERS[k] for k in own], ANSWERS, ids=ids)
    wrong = np.argsort(right.margins)[-3:]  # rows that nobody would be in doubt about
    own[wrong] = (own[wrong] + 1) % 3
    found = kernel_pilot(gram(gradients), [ANSWERS[k] for k in own], ANSWERS, ids=ids)
    assert set(found.suspects[:3]) == {ids[i] for i in wrong}
    margins = dict(zip(ids, found.margins, strict=True))
    assert [margins[one] for one in found.suspects] == sorted(m for m in found.margins if m < 0)


def test_what_cannot_be_predicted_is_said():
    gradients, own = rows()
    labels = [ANSWERS[k] for k in own]

    def refused(match, matrix=None, labels=labels, answers=ANSWERS, **given):
        with pytest.raises(DataError, match=match) as caught:
            kernel_pilot(gram(gradients) if matrix is None else matrix, labels, answers, **given)
        assert "\n" not in str(caught.value)

    refused("every row has the label 'red'", labels=["red"] * 24)
    refused("row 1: label 'pink' is none of", labels=[labels[0], "pink", *labels[2:]])
    refused("needs at least 8", gram(gradients[:5]), labels[:5])
    refused("9 labelled rows for 10 answers", labels=labels[:9], answers=[*ANSWERS, *"abcdefg"])
    refused(r"shape \(72, 71\)", gram(gradients)[:, :-1])
    refused(r"shape \(71, 71\)", gram(gradients)[:-1, :-1])
    refused("not symmetric", gram(gradients) + np.triu(np.ones((72, 72)), 1))
    noise = np.random.default_rng(0).normal(size=(72, 72))
    refused("negative eigenvalues", 9 * np.eye(72) + np.triu(noise, 1) + np.triu(noise, 1).T)
    broken = gram(gradients)
    broken[4] = broken[:, 4] = np.nan
    refused("row 1, answer 'green': the gradient is not finite", broken)
    same = gradients.copy()
    same[5, 2] = same[5, 0]
    refused("row 5, answer 'red' has the same gradient as row 5, answer 'blue'", gram(same))
    refused("3 ids for 24 labels", ids=["a", "b", "c"])
    with pytest.raises(DataError, match="one answer alone"):
        answer_kernel(gram(gradients[:, :1]), [0] * 24)
