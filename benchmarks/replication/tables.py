"""The Markdown that stands between the markers of docs/replication.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.replication.targets import CEILINGS, KINDS, PRIMARY, STATISTICS, TaskScores
from benchmarks.replication.worth import PREDICTORS, Row, partial, values, verdict, worth
from taskeff.errors import ConfigError
from taskeff.estimate.regression import pearson

CEILING_WORDS = {
    "one": "1.0",
    "best": "best measured",
    "chance": "chance-adjusted",
    "reachable": "reachable (n-grams)",
}
TOO_FEW = "Needs four tasks with a curve up to the cap and a CoS-Low; not measured yet."
KIND_WORDS = {"strict": "strict", "label": "among labels", "corrected": "format-corrected"}


@dataclass(frozen=True)
class Setup:
    """What the run set out to measure."""

    cap: int
    budgets: tuple[int, ...]
    seeds: tuple[int, ...]


MARKED = re.compile(r"(<!-- results -->\n).*?(<!-- end of results -->)", re.DOTALL)


def fill(page: Path, text: str) -> None:
    """Put `text` between the page's markers.

    Raises:
        ConfigError: it has no such place, or several.
    """
    given = page.read_text(encoding="utf-8")
    changed, places = MARKED.subn(lambda found: f"{found[1]}{text}{found[2]}", given)
    if places != 1:
        raise ConfigError(f"{page} has {places} places for the results")
    page.write_text(changed, encoding="utf-8")


def results(tasks: Sequence[TaskScores], setup: Setup) -> str:
    """Every table, in the order of the plan."""
    primary = areas(tasks, setup, *PRIMARY)
    parts = [
        _status(tasks, setup, primary),
        "### Every task attempted\n",
        _task_table(tasks, setup, primary),
        "### What each quantity is worth (strict score, ceiling 1.0)\n",
        _worth_table(tasks, primary),
        _given_labels(tasks, primary),
        "### CoS-Low against every score and ceiling\n",
        _target_table(tasks, setup),
        "### Agreement between seeds\n",
        _reliability(tasks, setup),
        "### CoS-Low's own noise\n",
        _noise_table(tasks),
        "### Low, random and high confidence\n",
        _confidence_table(tasks),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts if part)


def areas(
    tasks: Sequence[TaskScores], setup: Setup, kind: str, ceiling: str, seed: int | None = None
) -> list[float | None]:
    """Each task's AUC over its finished seeds, or at one; None where it has none."""
    found: list[float | None] = []
    for task in tasks:
        seeds = [s for s in task.seeds(setup.cap) if seed in (None, s)]
        curve = task.curve(kind, ceiling, setup.cap, seeds) if seeds else None
        found.append(None if curve is None else curve.auc)
    return found


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def number(value: Any, digits: int = 2, sign: bool = False) -> str:
    """A number as the tables write it: no leading zero, a dash where there is none."""
    if value is None or not np.isfinite(value):
        return "-"
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    return text.replace("0.", ".", 1) if text.lstrip("+-").startswith("0.") else text


def interval(ends: tuple[float, float] | None) -> str:
    """`[low, high]`, or nothing."""
    return "" if ends is None else f" [{number(ends[0])}, {number(ends[1])}]"


def _status(tasks: Sequence[TaskScores], setup: Setup, primary: Sequence[float | None]) -> str:
    full = [t.name for t in tasks if t.seeds(setup.cap) == list(setup.seeds)]
    fitted = sum(a is not None for a in primary)
    if len(full) == len(tasks):
        rows = {name: worth(name, values(tasks, name), primary) for name in PREDICTORS}
        own, control = rows["CoS-Low"], rows["random-example cosine"]
        found = "cannot be judged" if own is None or control is None else verdict(own, control)
        return (
            f"**Finished**: {len(tasks)} tasks, seeds {', '.join(map(str, setup.seeds))}. By the "
            f"plan's three conditions the claim **{found}** on this model."
        )
    n_cells = sum(len(task.strict) for task in tasks)
    planned = len(tasks) * (1 + len(setup.budgets) * len(setup.seeds))
    counts = {n: sum(len(t.seeds(setup.cap)) == n for t in tasks) for n in range(len(setup.seeds))}
    shown = ", ".join(f"{count} with {n}" for n, count in counts.items() if count)
    which, chosen = "All tasks have", ""
    if fitted < len(tasks):
        which = f"{fitted} tasks have"
        chosen = " They are those with the shortest prompts, not a random set."
    return (
        f"**Interim**: {n_cells} of {planned} cells are measured. Of {len(tasks)} tasks, "
        f"{len(full)} have all {len(setup.seeds)} seeds at {setup.cap} labels (by number of seeds: "
        f"{shown}). {which} at least one such seed and are in the fits below.{chosen} "
        "No verdict is drawn from them."
    )


def _task_table(tasks: Sequence[TaskScores], setup: Setup, primary: Sequence[float | None]) -> str:
    header = ["task", "labels", "chance", "n-gram", "zero-shot", "among labels"]
    header += [str(budget) for budget in setup.budgets]
    header += ["seeds", "AUC (seeds' range)", "CoS-Low [80 %]", "random", "in the fit"]
    by_seed = {s: areas(tasks, setup, *PRIMARY, seed=s) for s in setup.seeds}
    rows: list[list[str]] = []
    for i, task in enumerate(tasks):
        s = task.signal
        row = [task.name, "open" if s["is_open"] else f"{s['n_labels']:.0f}"]
        row += [number(s["chance"]), number(s["ngram_accuracy"]), number(task.zero_shot)]
        row.append(number(task.zero_shot_label))
        for budget in setup.budgets:
            scores = [v for (b, _), v in task.strict.items() if b == budget]
            row.append(number(float(np.mean(scores)) if scores else None))
        spread = [a for seed in setup.seeds if (a := by_seed[seed][i]) is not None]
        between = f" ({number(min(spread))}-{number(max(spread))})" if len(spread) > 1 else ""
        ends = None if s["cos_low"] is None else (s["cos_low_low"], s["cos_low_high"])
        row += [str(len(spread)), number(primary[i]) + between]
        row += [number(s["cos_low"]) + interval(ends), number(s["random_cosine"])]
        rows.append([*row, _why_not(task, setup, primary[i])])
    return table(header, rows)


def _why_not(task: TaskScores, setup: Setup, auc: float | None) -> str:
    if not task.strict:
        return "no: not started"
    if not task.seeds(setup.cap):
        return f"no: not measured at {setup.cap} labels yet"
    if auc is None:
        return "no: no room between zero-shot and the ceiling"
    return "yes" if task.signal["cos_low"] is not None else "no: CoS-Low not measured yet"


def _worth_table(tasks: Sequence[TaskScores], auc: Sequence[float | None]) -> str:
    rows = [worth(name, values(tasks, name), auc) for name in PREDICTORS]
    header = ["predictor", "tasks", "r [95 %]", "rho [95 %]", "left-out error", "of the mean"]
    found = [_worth_row(row) for row in rows if row]
    return table(header, found) if found else TOO_FEW


def _worth_row(row: Row) -> list[str]:
    return [
        row.name,
        str(row.n),
        number(row.r, sign=True) + interval(row.r_interval),
        number(row.rho, sign=True) + interval(row.rho_interval),
        number(row.mae, 3),
        number(row.mean_mae, 3),
    ]


def _given_labels(tasks: Sequence[TaskScores], auc: Sequence[float | None]) -> str:
    closed = [
        (float(t.signal["cos_low"]), a, float(np.log2(t.signal["n_labels"])))
        for t, a in zip(tasks, auc, strict=True)
        if a is not None and t.signal["cos_low"] is not None and not t.signal["is_open"]
    ]
    if len(closed) < 5:
        return ""
    x, y, labels = np.array(closed).T
    return (
        f"\nOver the {len(closed)} tasks that list labels, CoS-Low follows their number (log2) at "
        f"r {number(pearson(x, labels), sign=True)}; with that taken out, its correlation with AUC "
        f"is {number(partial(x, y, labels), sign=True)}."
    )


def _target_table(tasks: Sequence[TaskScores], setup: Setup) -> str:
    rows: list[list[str]] = []
    for kind in KINDS:
        for ceiling in CEILINGS:
            auc = areas(tasks, setup, kind, ceiling)
            row = worth("CoS-Low", values(tasks, "CoS-Low"), auc)
            control = "random-example cosine"
            other = worth(control, values(tasks, control), auc)
            if row is None or other is None:
                continue
            label = f"{KIND_WORDS[kind]}, {CEILING_WORDS[ceiling]}"
            marked = f"**{label}**" if (kind, ceiling) == PRIMARY else label
            rows.append([marked, *_worth_row(row)[1:], number(other.r, sign=True)])
    header = ["score, ceiling", "tasks", "r [95 %]", "rho [95 %]", "left-out error"]
    return table([*header, "of the mean", "random: r"], rows) if rows else TOO_FEW


def _reliability(tasks: Sequence[TaskScores], setup: Setup) -> str:
    rows: list[list[str]] = []
    for kind in KINDS:
        for ceiling in CEILINGS:
            by_seed = [areas(tasks, setup, kind, ceiling, seed=s) for s in setup.seeds]
            found: list[float] = []
            n = 0
            for first, second in combinations(by_seed, 2):
                both = [
                    (a, b)
                    for a, b in zip(first, second, strict=True)
                    if a is not None and b is not None
                ]
                if len(both) >= 4:
                    found.append(pearson(*np.array(both).T))
                    n = max(n, len(both))
            if found:
                label = f"{KIND_WORDS[kind]}, {CEILING_WORDS[ceiling]}"
                rows.append([label, str(n), ", ".join(number(r) for r in found)])
    if not rows:
        return "Needs two seeds on four tasks; not measured yet."
    return table(["score, ceiling", "tasks", "r between pairs of seeds"], rows)


def _noise_table(tasks: Sequence[TaskScores]) -> str:
    studied = [t for t in tasks if t.signal["draw_sd_median"] is not None]
    if not studied:
        return "Not measured yet."
    header = ["task", "commonest label of the 32", "median", "balanced", "mean"]
    header += ["draws, sd: median", "balanced", "mean", "A, sd: median", "balanced", "mean"]
    order = ("median", "balanced", "mean")
    rows: list[list[str]] = []
    for task in studied:
        s = task.signal
        row = [task.name, number(s["commonest_label"])]
        row += [number(s[f"low_{name}"]) for name in order]
        row += [number(s[f"{group}_{name}"], 3) for group in ("draw_sd", "a_sd") for name in order]
        rows.append(row)
    between = [float(np.std([t.signal[f"low_{name}"] for t in studied])) for name in order]
    mean = {
        f"{group}_{name}": float(np.mean([t.signal[f"{group}_{name}"] for t in studied]))
        for group in ("draw_sd", "a_sd")
        for name in STATISTICS
    }
    last = ["**sd between tasks; mean sd**", "", *(number(v) for v in between)]
    last += [number(mean[f"{group}_{n}"], 3) for group in ("draw_sd", "a_sd") for n in order]
    return table(header, [*rows, last])


def _confidence_table(tasks: Sequence[TaskScores]) -> str:
    studied = [t for t in tasks if t.signal["high_median"] is not None]
    if not studied:
        return "Not measured yet."
    groups = ("low", "random", "high", "warm")
    rows = [
        [t.name, *(number(t.signal[f"{g}_{name}"]) for name in ("median", "mean") for g in groups)]
        for t in studied
    ]
    header = ["task", *(f"{g}: {name}" for name in ("median", "mean") for g in groups)]
    return table(header, rows)
