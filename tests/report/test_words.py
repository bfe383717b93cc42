"""The sentences must say no more than the numbers do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from taskeff.report import words
from taskeff.report.data import Correlation, HeldOut, Interval, LabelTarget, ReportData
from tests.report import fake

CLEAR = Interval(0.2, 0.8, 0.95)


def plain(text: str) -> str:
    return text.replace(words.NBSP, " ")


def sentence(data: ReportData, task: str) -> str:
    held_out = next(h for h in data.held_out if h.task == task)
    a = words.answer(held_out, data)
    return plain(f"{a.task}: {a.before}{a.needed}{a.after}")


def judged(
    mae: float | None,
    baseline: float | None,
    r: float | None = 0.6,
    interval: Interval | None = CLEAR,
    **changes: object,
) -> words.Verdict:
    data = fake.report()
    calibration = replace(
        data.calibration, loo_mae=mae, mean_baseline=baseline, controls=(), **changes
    )
    signal = Correlation("cos_low", r, interval)
    return words.verdict(replace(data, calibration=calibration, signal=signal))


def test_the_answer_is_one_plain_sentence() -> None:
    assert sentence(fake.report(), "airport_country") == (
        "airport_country: label about 87 examples (80 % interval 20 to 400) to reach 90 % of what "
        "128 labels would give; measured: 64."
    )


def test_out_of_reach_is_an_answer() -> None:
    assert sentence(fake.report(), "web_of_lies") == (
        "web_of_lies: 90 % of what 128 labels would give is not reachable within the cap of 128 "
        "labels (80 % interval 95 to beyond the cap); measured: never reached."
    )


def test_the_ceiling_as_reference_is_named() -> None:
    data = replace(fake.report(), reference="ceiling")
    assert "90 % of the way from zero-shot to the ceiling" in sentence(data, "airport_country")


def test_a_task_nobody_measured_is_not_said_to_have_failed() -> None:
    data = fake.report()
    curves = tuple(c for c in data.curves if c.name != "web_of_lies")
    data = replace(data, curves=curves)
    assert sentence(data, "web_of_lies").endswith("measured: not measured.")
    # Of the six predictions two can then no longer be checked.
    assert "of 4 predictions" in " ".join(words.verdict(data).sentences)


def test_a_problem_stands_in_place_of_a_number() -> None:
    data = replace(fake.report(), held_out=(HeldOut("t", None, problem="CoS-Low is .9."),))
    assert sentence(data, "t") == "t: no estimate: CoS-Low is .9."


@pytest.mark.parametrize("baseline", [0.1, 0.09])
def test_no_better_than_the_mean_is_said_so(baseline: float) -> None:
    verdict = judged(0.1, baseline)
    assert verdict.kind == "no"
    assert verdict.headline == "On this family CoS-Low does not beat predicting the mean."


def test_an_interval_around_zero_is_called_chance() -> None:
    verdict = judged(0.09, 0.1, 0.3, Interval(-0.2, 0.7, 0.95))
    assert verdict.kind == "weak"
    assert "chance alone could explain" in verdict.headline
    assert "includes no correlation at all" in " ".join(verdict.sentences)


def test_a_control_that_does_better_takes_the_headline() -> None:
    data = fake.report()
    calibration = replace(
        data.calibration,
        loo_mae=0.08,
        mean_baseline=0.1,
        controls=(Correlation("mean_cosine", 0.7, None, 0.07), Correlation("x", 0.1, None, 0.2)),
    )
    signal = Correlation("cos_low", 0.6, Interval(0.2, 0.8, 0.95))
    verdict = words.verdict(replace(data, calibration=calibration, signal=signal))
    assert verdict.kind == "weak"
    assert verdict.headline.endswith("but mean cosine does as well or better.")


def test_a_negative_correlation_is_called_the_wrong_way() -> None:
    assert "wrong way" in judged(0.09, 0.1, -0.5, Interval(-0.8, -0.1, 0.95)).headline


def test_only_a_clear_gain_is_called_information() -> None:
    verdict = judged(0.08, 0.1)
    assert verdict.kind == "helps"
    assert "by 20 %" in plain(verdict.headline)


@pytest.mark.parametrize("mae, baseline", [(None, 0.1), (float("nan"), 0.1), (0.1, None)])
def test_unknown_errors_are_called_unknown(mae: float | None, baseline: float | None) -> None:
    assert judged(mae, baseline).kind == "unknown"


def test_few_tasks_are_called_few_and_short_ones_do_not_count() -> None:
    tasks = fake.report().calibration.tasks
    short = tuple(replace(t, status="short") for t in tasks[9:])
    text = " ".join(judged(0.1, 0.2, tasks=(*tasks[:9], *short)).sentences)
    assert "over 9 tasks. With so few tasks none of these numbers is firm." in text


def test_coverage_counts_what_can_be_checked() -> None:
    data = fake.report()
    curve = data.curve("airport_country")

    def covers(labels: float | None, interval: Interval | None, measured: float | None):
        return words.covers(LabelTarget(0.9, labels, interval, measured), curve)

    assert covers(50, Interval(20, 90), 64) is True
    assert covers(50, Interval(20, 60), 64) is False
    assert covers(50, Interval(20, None), None) is True
    assert covers(50, Interval(20, 60), None) is False
    assert covers(None, None, None) is True
    assert covers(None, None, 64) is False
    assert covers(50, None, 64) is None
    assert words.covers(LabelTarget(0.9, 50, Interval(1, 90), None), None) is None


@pytest.mark.parametrize(
    "value, shown", [(0.2, "0"), (1, "1"), (9.6, "10"), (87.2, "87"), (143, "140"), (2345, "2,300")]
)
def test_label_counts_have_two_digits(value: float, shown: str) -> None:
    assert words.count(value) == shown


@pytest.mark.parametrize(
    "value, shown",
    [(0.456, "0.46"), (-0.3, "−0.30"), (-0.001, "0.00"), (None, "—"), (float("nan"), "—")],
)
def test_numbers(value: float | None, shown: str) -> None:
    assert words.number(value) == shown


@pytest.mark.parametrize(
    "value, shown", [(553, "9 min 13 s"), (3725, "1 h 2 min"), (0.2, "0 s"), (None, "—")]
)
def test_durations(value: float | None, shown: str) -> None:
    assert plain(words.duration(value)) == shown
