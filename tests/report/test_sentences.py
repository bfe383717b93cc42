"""The sentences must say no more than the numbers do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from taskeff.estimate.regression import Worth
from taskeff.report import sentences
from tests.report import fake

CLEAR = (0.2, 0.8)


def plain(text: str) -> str:
    return text.replace(sentences.NBSP, " ")


def sentence(*estimates, **more) -> str:
    a = sentences.answer(fake.told(*estimates, **more))
    return plain(f"{a.task}: {a.before}{a.needed}{a.after} {a.also}".strip())


def judged(
    mae: float,
    baseline: float,
    r: float | None = 0.6,
    interval: tuple[float, float] | None = CLEAR,
    **changes: object,
) -> sentences.Verdict:
    changes = {"controls": {}, "mae": mae, "mean_baseline": baseline, **changes}
    worth = Worth(r, interval, mae)
    return sentences.verdict(replace(fake.report().calibration, cos_low=worth, **changes))


def test_the_answer_is_one_plain_sentence() -> None:
    assert sentence(fake.said(87.2, (20, 400), reach_probability=0.724)) == (
        "airport_country: label about 88 examples (80 % interval 20 to 400, chance of getting "
        "there 72 %) to reach 90 % of the way from zero-shot to the ceiling; measured: 64."
    )


def test_the_highest_share_comes_first_and_the_others_after_it() -> None:
    said = sentence(fake.said(41.3, (9, 160), target=0.8), fake.said(87.2, None), reached=32)
    assert said == (
        "airport_country: label about 88 examples to reach 90 % of the way from zero-shot to the "
        "ceiling; measured: 32. For 80 %: about 42 (80 % interval 9 to 160); measured: 22."
    )


def test_out_of_reach_is_an_answer() -> None:
    assert sentence(fake.said(None, (95, None)), reached=None) == (
        "airport_country: 90 % of the way from zero-shot to the ceiling is not reachable within "
        "the cap of 128 labels (80 % interval 95 to beyond the cap); measured: never reached."
    )


def test_an_interval_wholly_beyond_the_cap_is_said_so() -> None:
    assert "(80 % interval beyond the cap)" in sentence(fake.said(None, (fake.CAP, None)))


def test_a_problem_stands_in_place_of_a_number() -> None:
    assert sentence(problem="CoS-Low is .9.") == "airport_country: no estimate: CoS-Low is .9."


@pytest.mark.parametrize("baseline", [0.1, 0.09])
def test_no_better_than_the_mean_is_said_so(baseline: float) -> None:
    verdict = judged(0.1, baseline)
    assert verdict.kind == "no"
    assert verdict.headline == "On this family CoS-Low does not beat predicting the mean."


def test_an_interval_around_zero_is_called_chance() -> None:
    verdict = judged(0.09, 0.1, 0.3, (-0.2, 0.7))
    assert verdict.kind == "weak"
    assert "chance alone could explain" in verdict.headline
    assert "includes no correlation at all" in " ".join(verdict.sentences)


def test_a_control_that_does_better_takes_the_headline() -> None:
    controls = {"x": Worth(0.1, None, 0.2), "mean_cosine": Worth(0.7, None, 0.07)}
    verdict = judged(0.08, 0.1, controls=controls)
    assert verdict.kind == "weak"
    assert verdict.headline.endswith("but mean cosine does as well or better.")


def test_a_negative_correlation_is_called_the_wrong_way() -> None:
    assert "wrong way" in judged(0.09, 0.1, -0.5, (-0.8, -0.1)).headline


def test_only_a_clear_gain_is_called_information() -> None:
    verdict = judged(0.08, 0.1)
    assert verdict.kind == "helps"
    assert "by 20 %" in plain(verdict.headline)


def test_few_tasks_are_called_few_and_short_ones_do_not_count() -> None:
    tasks = fake.report().calibration.tasks
    short = tuple(replace(t, status="short") for t in tasks[9:])
    text = " ".join(judged(0.1, 0.2, tasks=(*tasks[:9], *short)).sentences)
    assert "over 9 tasks. With so few tasks none of these numbers is firm." in text


def test_coverage_counts_what_can_be_checked() -> None:
    assert sentences.covers(fake.said(50, (20, 90)), 64) is True
    assert sentences.covers(fake.said(50, (20, 60)), 64) is False
    assert sentences.covers(fake.said(50, (20, None)), None) is True
    assert sentences.covers(fake.said(50, (20, 60)), None) is False
    assert sentences.covers(fake.said(None, (95, None)), 64) is False
    assert sentences.covers(fake.said(50, None), 64) is None
    tasks = [fake.told(fake.said(50, (20, 90)), fake.said(50, (20, 60)), fake.said(50, None))]
    said = sentences.verdict(fake.report().calibration, tasks).sentences
    assert "On the held-out tasks 1 of 2 predictions hold" in said[-1]


@pytest.mark.parametrize(
    "value, shown", [(0.2, "1"), (1, "1"), (9.6, "10"), (87.2, "88"), (143, "143"), (2345, "2,345")]
)
def test_labels_are_whole_and_suffice(value: float, shown: str) -> None:
    assert sentences.count(value) == shown


@pytest.mark.parametrize(
    "value, shown",
    [(0.456, "0.46"), (-0.3, "−0.30"), (-0.001, "0.00"), (None, "—")],
)
def test_numbers(value: float | None, shown: str) -> None:
    assert sentences.number(value) == shown


@pytest.mark.parametrize(
    "value, shown", [(553, "9 min 13 s"), (3725, "1 h 2 min"), (0.2, "0 s"), (None, "—")]
)
def test_durations(value: float | None, shown: str) -> None:
    assert plain(sentences.duration(value)) == shown
