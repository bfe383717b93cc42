"""Numbers into plain sentences, so that the page never claims more than they allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from taskeff.estimate import words
from taskeff.estimate.budget import LEVEL, Estimate
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.evidence import COS_LOW, MEAN
from taskeff.estimate.left_out import Prediction
from taskeff.estimate.regression import Worth
from taskeff.estimate.rounding import whole
from taskeff.report.contents import ReportData, TaskReport

MINUS, NBSP = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"
UNKNOWN = "\N{EM DASH}"
NOT_REACHABLE = "not reachable within the cap"
NEVER_REACHED = "never reached"
R_LEVEL = 0.95  # of the interval of a correlation
# Below this many tasks a correlation's interval spans most of the line whatever the truth is.
FEW_TASKS = 10

_NAMES = {
    "cos_low": "CoS-Low",
    "auc": "AUC",
    "label_zero_shot": "zero-shot among the task's labels",
}


@dataclass(frozen=True)
class Answer:
    """One held-out task's answer: `needed` is the part to stress."""

    task: str
    before: str
    needed: str
    after: str
    also: str = ""


@dataclass(frozen=True)
class Verdict:
    """How far to trust the page: one headline, what works, then the numbers behind it."""

    kind: Literal["helps", "weak", "no"]
    headline: str
    works: str
    sentences: tuple[str, ...]


def number(value: float | None, digits: int = 2) -> str:
    """0.48 with a true minus sign, or a dash for what is not known."""
    if value is None:
        return UNKNOWN
    text = f"{value:.{digits}f}"
    return text[1:] if float(text) == 0 and text[0] == "-" else text.replace("-", MINUS)


def percent(share: float) -> str:
    """90 %, kept on one line."""
    return f"{share * 100:.3g}{NBSP}%"


def count(labels: float) -> str:
    """A number of labels, whole."""
    return f"{whole(labels):,}"


def span(interval: tuple[float, float] | None, digits: int = 2) -> str:
    """0.12 to 0.55."""
    if interval is None:
        return UNKNOWN
    return f"{number(interval[0], digits)} to {number(interval[1], digits)}"


def label_span(estimate: Estimate) -> str:
    """20 to 400, or 20 to beyond the cap, or all of it beyond."""
    return UNKNOWN if estimate.intervals is None else words.span(estimate)


def title(name: str) -> str:
    """The readable form of a control's name."""
    return _NAMES.get(name, name.replace("_", " "))


def predicted_labels(estimate: Estimate) -> str:
    """The predicted number, or that it cannot be reached."""
    return NOT_REACHABLE if estimate.labels_needed is None else count(estimate.labels_needed)


def measured_labels(prediction: Prediction, target: float) -> str:
    """The measured number, or that it was never reached."""
    labels = prediction.measured_labels(target)
    return NEVER_REACHED if labels is None else count(labels)


def goal(share: float) -> str:
    """What a share is a share of, in words."""
    return f"{percent(share)} of the way from zero-shot to the ceiling"


def answer(task: TaskReport) -> Answer:
    """The sentence for one held-out task: its highest share first, the others after it."""
    prediction = task.prediction
    if prediction.problem is not None:
        return Answer(task.name, "", "no estimate", f": {prediction.problem.rstrip('.')}.")
    main, *others = sorted(prediction.estimates, key=lambda estimate: -estimate.target)
    also = " ".join(
        f"For {percent(other.target)}: "
        f"{NOT_REACHABLE if other.labels_needed is None else f'about {count(other.labels_needed)}'}"
        f"{_certainty(other)}; measured: {measured_labels(prediction, other.target)}."
        for other in others
    )
    measured = f"; measured: {measured_labels(prediction, main.target)}."
    if main.labels_needed is None:
        needed = f"{NOT_REACHABLE} of {main.cap:,} labels"
        return Answer(
            task.name, f"{goal(main.target)} is ", needed, f"{_certainty(main)}{measured}", also
        )
    after = f"{_certainty(main)} to reach {goal(main.target)}{measured}"
    shown = count(main.labels_needed)
    needed = f"about {shown}{NBSP}{'example' if shown == '1' else 'examples'}"
    return Answer(task.name, "label ", needed, after, also)


def curve_label(task: TaskReport) -> str:
    """The alternative text of one curve."""
    points = task.prediction.curve.points
    shown = ", ".join(f"{number(p.score)} at {p.budget:,} labels" for p in points)
    band = "; with its predicted curve" if task.prediction.estimates else ""
    return f"Learning curve of {task.name}: {shown}{band}."


def measured_with(data: ReportData) -> str:
    """How many seeds and test rows stand behind a point."""
    seeds = _range([task.seeds for task in data.tasks], "seed")
    return f"Measured with {seeds}, on {_range([t.n_test for t in data.tasks], 'test row')}."


def duration(seconds: float | None) -> str:
    """9 min 12 s."""
    if seconds is None:
        return UNKNOWN
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest if not hours else 0, "s")]
    return " ".join(f"{value}{NBSP}{unit}" for value, unit in parts if value) or f"0{NBSP}s"


def verdict(calibration: Calibration, held_out: Sequence[TaskReport] = ()) -> Verdict:
    """How far to trust the predictions, from nothing but the calibration's own numbers."""
    kind, headline = _headline(calibration)
    sentences = [_errors, _correlation, _rivals]
    said = [*(sentence(calibration) for sentence in sentences), _coverage(held_out)]
    return Verdict(kind, headline, works(calibration), tuple(s for s in said if s))


def works(calibration: Calibration) -> str:
    """What says most of a new task of this family, tried on its own tasks one at a time."""
    mean, *others = calibration.evidence or (None,)
    if mean is None:
        return "What evidence is worth on this family was not tried."
    best = min(others, key=lambda found: found["auc_mae"], default=mean)
    off = f"an error in AUC of {number(mean['auc_mae'], 3)}"
    if best["auc_mae"] >= mean["auc_mae"]:
        tried = f" ({'; '.join(map(evidence, others))})" if others else ""
        return (
            f"Nothing that was tried{tried} says more of a task of this family than the mean of "
            f"the others, {off}."
        )
    return (
        f"What says most of a new task of this family: {evidence(best)}, with an error in AUC of "
        f"{number(best['auc_mae'], 3)} where the mean of the others has "
        f"{number(mean['auc_mae'], 3)}{_labels_off(best, mean)}; its {percent(LEVEL)} intervals "
        f"held {held(best, 'auc_coverage')} areas and {held(best, 'label_coverage')} numbers of "
        "labels."
    )


def _labels_off(best: Mapping[str, Any], mean: Mapping[str, Any]) -> str:
    if best["log2_error_mean"] is None or mean["log2_error_mean"] is None:
        return ""
    goes = f"labels at {percent(best['target'])} off by a factor of {factor(best)}"
    return f", and {goes} where the mean's are by {factor(mean)}"


def evidence(record: Mapping[str, Any]) -> str:
    """The name of a record of `Calibration.evidence`."""
    if record["predictor"] == MEAN:
        return "the mean of the other tasks"
    budgets = " and ".join(f"{n:,}" for n in record["pilots"])
    parts = [title(COS_LOW)] if record["predictor"] == COS_LOW else []
    if budgets:
        parts.append(f"{'fine-tunes' if ' ' in budgets else 'a fine-tune'} on {budgets} labels")
    return " and ".join(parts)


def factor(record: Mapping[str, Any]) -> str:
    """By what factor labels are off on average; a dash where no task says."""
    error = record["log2_error_mean"]
    return UNKNOWN if error is None else number(2**error, 1)


def held(record: Mapping[str, Any], what: str) -> str:
    """24 of 30: how many of the intervals held."""
    found = record[what] and record[what][f"{100 * LEVEL:.0f}"]
    return f"{found['covered']:.0f} of {found['of']:.0f}" if found else UNKNOWN


def _fitted(calibration: Calibration) -> tuple[Worth, float, float]:
    """What CoS-Low is worth, its left-out error, and that of predicting the mean."""
    worth, baseline = calibration.cos_low, calibration.mean_baseline
    assert worth is not None and baseline is not None, "a run's calibration has tasks"
    return worth, worth.mae, baseline


def _headline(calibration: Calibration) -> tuple[Literal["helps", "weak", "no"], str]:
    worth, mae, baseline = _fitted(calibration)
    if mae >= baseline:
        return "no", "On this family CoS-Low does not beat predicting the mean."
    gain = percent(round(1 - mae / baseline, 2))
    if worth.r is not None and worth.r < 0:
        return (
            "weak",
            "On this family CoS-Low goes the wrong way: tasks with more of it learn slower.",
        )
    if worth.r_interval is None or worth.r_interval[0] <= 0:
        return "weak", (
            f"CoS-Low lowers the error of predicting the mean by {gain}, but with these tasks "
            "chance alone could explain that."
        )
    better = _better_controls(calibration)
    if better:
        one = len(better) == 1
        rivals = title(next(iter(better))) if one else f"{len(better)} of the controls"
        return "weak", (
            f"CoS-Low lowers the error of predicting the mean by {gain}, but {rivals} "
            f"{'does' if one else 'do'} as well or better."
        )
    return "helps", (
        f"On this family CoS-Low carries information: it lowers the error of predicting the mean "
        f"by {gain}, and no control does better."
    )


def _errors(calibration: Calibration) -> str:
    _, mae, baseline = _fitted(calibration)
    return (
        f"With each of the {len(calibration.fitted)} calibration tasks left out in turn, the fit "
        f"misses its AUC by {number(mae, 3)} on average; predicting the mean of the other tasks "
        f"misses it by {number(baseline, 3)}."
    )


def _correlation(calibration: Calibration) -> str:
    worth, tasks = _fitted(calibration)[0], len(calibration.fitted)
    if worth.r is None:
        return ""
    text = f"CoS-Low and AUC correlate with r{NBSP}={NBSP}{number(worth.r)}"
    if worth.r_interval is not None:
        text += f" ({percent(R_LEVEL)} interval {span(worth.r_interval)})"
        if worth.r_interval[0] <= 0 <= worth.r_interval[1]:
            text += ", which includes no correlation at all"
    text += f", over {tasks} tasks."
    return text + (" With so few tasks none of these numbers is firm." if tasks < FEW_TASKS else "")


def _rivals(calibration: Calibration) -> str:
    rivals, better = calibration.controls, _better_controls(calibration)
    if not rivals:
        return ""
    if not better:
        tested = "The one control" if len(rivals) == 1 else f"Each of the {len(rivals)} controls"
        return f"{tested} misses by more in the same test."
    *first, last = (f"{title(name)} ({number(mae, 3)})" for name, mae in better.items())
    named = f"{', '.join(first)} and {last}" if first else last
    return f"In the same test as good or better, out of {len(rivals)} controls: {named}."


def _better_controls(calibration: Calibration) -> dict[str, float]:
    """Left-out errors of the controls that are no worse than CoS-Low, the best first."""
    mae = _fitted(calibration)[1]
    errors = sorted((worth.mae, name) for name, worth in calibration.controls.items())
    return {name: error for error, name in errors if error <= mae}


def _coverage(held_out: Sequence[TaskReport]) -> str:
    outcomes = [
        covered
        for task in held_out
        for estimate in task.prediction.estimates
        if (covered := covers(estimate, task.prediction.measured_labels(estimate.target)))
        is not None
    ]
    if not outcomes:
        return ""
    return (
        f"On the held-out tasks {sum(outcomes)} of {len(outcomes)} predictions hold: the measured "
        "number of labels lies within the predicted interval."
    )


def covers(estimate: Estimate, measured: float | None) -> bool | None:
    """Whether the interval holds the labels measured; None without an interval.

    Args:
        measured: labels at which the target was reached; None where it never was.
    """
    if estimate.intervals is None:
        return None
    low, high = estimate.intervals[LEVEL]
    if measured is None:
        return high is None or not estimate.reachable
    return low <= measured and (high is None or measured <= high)


def _certainty(estimate: Estimate) -> str:
    said = []
    if estimate.intervals is not None:
        said.append(f"{percent(LEVEL)} interval {label_span(estimate)}")
    if estimate.reach_probability is not None:
        said.append(f"chance of getting there {percent(round(estimate.reach_probability, 2))}")
    return f" ({', '.join(said)})" if said else ""


def _range(values: Sequence[int], noun: str) -> str:
    low, high = min(values), max(values)
    number = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{number} {noun}{'' if high == 1 else 's'}"
