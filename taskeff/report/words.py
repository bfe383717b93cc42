"""Numbers into plain sentences, so that the page never claims more than they allow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from taskeff.report.data import Correlation, HeldOut, Interval, LabelTarget, ReportData, TaskCurve

MINUS, NBSP = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"
UNKNOWN = "\N{EM DASH}"
NOT_REACHABLE = "not reachable within the cap"
NEVER_REACHED = "never reached"
NOT_MEASURED = "not measured"
BEYOND = "beyond the cap"
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
    """How far to trust the page: one headline, then the numbers behind it."""

    kind: Literal["helps", "weak", "no", "unknown"]
    headline: str
    sentences: tuple[str, ...]


def known(value: float | None) -> bool:
    """Whether a number is there and finite."""
    return value is not None and math.isfinite(value)


def number(value: float | None, digits: int = 2) -> str:
    """0.48 with a true minus sign, or a dash for what is not known."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = f"{value:.{digits}f}"
    return text[1:] if float(text) == 0 and text[0] == "-" else text.replace("-", MINUS)


def percent(share: float) -> str:
    """90 %, kept on one line."""
    return f"{share * 100:.3g}{NBSP}%"


def count(value: float) -> str:
    """A number of labels to two significant digits: more would be false precision."""
    if value < 1:
        return "0"
    size = 10 ** max(0, math.floor(math.log10(value)) - 1)
    return f"{round(value / size) * size:,}"


def span(interval: Interval | None, digits: int = 2) -> str:
    """0.12 to 0.55."""
    if interval is None or not known(interval.low) or not known(interval.high):
        return UNKNOWN
    return f"{number(interval.low, digits)} to {number(interval.high, digits)}"


def label_span(interval: Interval | None) -> str:
    """20 to 400, or 20 to beyond the cap."""
    if interval is None:
        return UNKNOWN
    if interval.high is None or not math.isfinite(interval.high):
        return f"{count(interval.low)} to {BEYOND}"
    return f"{count(interval.low)} to {count(interval.high)}"


def title(name: str) -> str:
    """The readable form of a control's name."""
    return _NAMES.get(name, name.replace("_", " "))


def predicted_labels(target: LabelTarget) -> str:
    """The predicted number, or that it cannot be reached."""
    return NOT_REACHABLE if target.labels is None else count(target.labels)


def measured_labels(target: LabelTarget, curve: TaskCurve | None) -> str:
    """The measured number, that it was never reached, or that nobody measured."""
    if curve is None or not curve.measured:
        return NOT_MEASURED
    return NEVER_REACHED if target.measured is None else f"{round(target.measured):,}"


def goal(share: float, data: ReportData) -> str:
    """What a share is a share of, in words."""
    if data.reference == "cap":
        return f"{percent(share)} of what {data.calibration.cap:,} labels would give"
    return f"{percent(share)} of the way from zero-shot to the ceiling"


def answer(held_out: HeldOut, data: ReportData) -> Answer:
    """The sentence for one held-out task: its highest share first, the others after it."""
    targets = sorted(held_out.targets, key=lambda target: -target.share)
    if held_out.problem or not targets:
        problem = held_out.problem.rstrip(".") or "nothing was predicted for it"
        return Answer(held_out.task, "", "no estimate", f": {problem}.")
    main, curve = targets[0], data.curve(held_out.task)
    also = " ".join(_also(target, curve) for target in targets[1:])
    measured = f"; measured: {measured_labels(main, curve)}."
    interval = _bracket(main.interval)
    if main.labels is None:
        before = f"{goal(main.share, data)} is "
        needed = f"{NOT_REACHABLE} of {data.calibration.cap:,} labels"
        return Answer(held_out.task, before, needed, f"{interval}{measured}", also)
    after = f"{interval} to reach {goal(main.share, data)}{measured}"
    return Answer(held_out.task, "label ", _examples(main.labels), after, also)


def curve_label(task: TaskCurve) -> str:
    """The alternative text of one curve."""
    points = [f"{number(p.score)} at {p.budget:,} labels" for p in task.points]
    shown = ", ".join(points) if points else NOT_MEASURED
    band = "; with its predicted curve" if task.predicted is not None else ""
    return f"Learning curve of {task.name}: {shown}{band}."


def measured_with(data: ReportData) -> str:
    """How many seeds and test rows stand behind a point."""
    measured = [c for c in data.curves if c.measured]
    if not measured:
        return ""
    seeds = _range([c.seeds for c in measured], "seed")
    return f"Measured with {seeds}, on {_range([c.n_test for c in measured], 'test row')}."


def duration(seconds: float | None) -> str:
    """9 min 12 s."""
    if seconds is None or not known(seconds):
        return UNKNOWN
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest if not hours else 0, "s")]
    return " ".join(f"{value}{NBSP}{unit}" for value, unit in parts if value) or f"0{NBSP}s"


def verdict(data: ReportData) -> Verdict:
    """How far to trust the predictions, from nothing but the calibration's own numbers."""
    cal, r = data.calibration, data.signal
    sentences = [_errors(data), _correlation(r, len(cal.fitted)), _rivals(data), _coverage(data)]
    kind, headline = _headline(data)
    return Verdict(kind, headline, tuple(s for s in sentences if s))


def _headline(data: ReportData) -> tuple[Literal["helps", "weak", "no", "unknown"], str]:
    mae, baseline = data.calibration.loo_mae, data.calibration.mean_baseline
    if mae is None or baseline is None or not known(mae) or not known(baseline):
        return "unknown", "This fit comes without its errors, so how far to trust it is not known."
    if mae >= baseline:
        return "no", "On this family CoS-Low does not beat predicting the mean."
    gain = percent(round(1 - mae / baseline, 2))
    if data.signal.r is not None and data.signal.r < 0:
        return (
            "weak",
            "On this family CoS-Low goes the wrong way: tasks with more of it learn slower.",
        )
    if not _above_zero(data.signal.interval):
        return "weak", (
            f"CoS-Low lowers the error of predicting the mean by {gain}, but with these tasks "
            "chance alone could explain that."
        )
    better = _better_controls(data)
    if better:
        one = len(better) == 1
        rivals = title(better[0].name) if one else f"{len(better)} of the controls"
        return "weak", (
            f"CoS-Low lowers the error of predicting the mean by {gain}, but {rivals} "
            f"{'does' if one else 'do'} as well or better."
        )
    return "helps", (
        f"On this family CoS-Low carries information: it lowers the error of predicting the mean "
        f"by {gain}, and no control does better."
    )


def _errors(data: ReportData) -> str:
    cal = data.calibration
    if not known(cal.loo_mae) or not known(cal.mean_baseline):
        return ""
    return (
        f"With each of the {len(cal.fitted)} calibration tasks left out in turn, the fit misses "
        f"its AUC by {number(cal.loo_mae, 3)} on average; predicting the mean of the other tasks "
        f"misses it by {number(cal.mean_baseline, 3)}."
    )


def _correlation(signal: Correlation, tasks: int) -> str:
    if not known(signal.r):
        return ""
    text = f"CoS-Low and AUC correlate with r{NBSP}={NBSP}{number(signal.r)}"
    if signal.interval is not None:
        text += f" ({percent(signal.interval.level)} interval {span(signal.interval)})"
        if not _above_zero(signal.interval) and not _below_zero(signal.interval):
            text += ", which includes no correlation at all"
    text += f", over {tasks} tasks."
    few = " With so few tasks none of these numbers is firm." if tasks < FEW_TASKS else ""
    return text + few


def _rivals(data: ReportData) -> str:
    rivals = [c for c in data.controls if known(c.loo_mae)]
    if not known(data.calibration.loo_mae) or not rivals:
        return ""
    better = _better_controls(data)
    if not better:
        tested = "The one control" if len(rivals) == 1 else f"Each of the {len(rivals)} controls"
        return f"{tested} misses by more in the same test."
    named = _list([f"{title(c.name)} ({number(c.loo_mae, 3)})" for c in better])
    return f"In the same test as good or better, out of {len(rivals)} controls: {named}."


def _better_controls(data: ReportData) -> list[Correlation]:
    """The controls whose left-out error is no larger than CoS-Low's, the best first."""
    mae = data.calibration.loo_mae
    if mae is None:
        return []
    better = [(c.loo_mae, c) for c in data.controls if c.loo_mae is not None and c.loo_mae <= mae]
    return [c for _, c in sorted(better, key=lambda pair: pair[0])]


def _coverage(data: ReportData) -> str:
    outcomes = [
        covered
        for held_out in data.held_out
        for target in held_out.targets
        if (covered := covers(target, data.curve(held_out.task))) is not None
    ]
    if not outcomes:
        return ""
    return (
        f"On the held-out tasks {sum(outcomes)} of {len(outcomes)} predictions hold: the measured "
        "number of labels lies within the predicted interval."
    )


def covers(target: LabelTarget, curve: TaskCurve | None) -> bool | None:
    """Whether the prediction held, or None where that cannot be checked."""
    if curve is None or not curve.measured:
        return None
    if target.interval is None:
        if target.labels is not None:
            return None
        return target.measured is None
    open_end = target.interval.high is None
    if target.measured is None:
        return open_end or target.labels is None
    return target.interval.low <= target.measured and (
        target.interval.high is None or target.measured <= target.interval.high
    )


def _also(target: LabelTarget, curve: TaskCurve | None) -> str:
    interval = _bracket(target.interval)
    measured = measured_labels(target, curve)
    if target.labels is None:
        return f"For {percent(target.share)}: {NOT_REACHABLE}{interval}; measured: {measured}."
    return (
        f"For {percent(target.share)}: about {count(target.labels)}{interval}; "
        f"measured: {measured}."
    )


def _bracket(interval: Interval | None) -> str:
    return f" ({percent(interval.level)} interval {label_span(interval)})" if interval else ""


def _examples(labels: float) -> str:
    shown = count(labels)
    return f"about {shown}{NBSP}{'example' if shown == '1' else 'examples'}"


def _above_zero(interval: Interval | None) -> bool:
    return interval is not None and known(interval.low) and interval.low > 0


def _below_zero(interval: Interval | None) -> bool:
    return interval is not None and interval.high is not None and interval.high < 0


def _range(values: Sequence[int], noun: str) -> str:
    low, high = min(values), max(values)
    number = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{number} {noun}{'' if high == 1 else 's'}"


def _list(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
