"""Measured lines -> the Markdown between the markers of docs/kernel.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.replication.tables import Setup, areas, interval, number, table
from benchmarks.replication.targets import PRIMARY, TaskScores
from benchmarks.replication.worth import Row, values, worth
from taskeff.estimate.regression import fit_line, pearson

SETUP = Setup(512, (8, 32, 128, 512), (0, 1, 2))
BESIDE = (
    "CoS-Low",
    "random-example cosine",
    "zero-shot score",
    "zero-shot among labels",
    "n-gram accuracy",
    "log2 number of labels",
)
"""Predictors of the replication that are listed beside the kernel."""

Line = Mapping[str, Any]
Lines = Mapping[tuple[str, str], Line]


@dataclass(frozen=True)
class Found:
    """One task: its measured curve, its area, and its lines by draw."""

    scores: TaskScores
    area: float
    lines: Mapping[str, Line]

    def gained(self, accuracy: float | None) -> float | None:
        """The share of what lies between the zero-shot score and 1 that `accuracy` reaches."""
        z = self.scores.zero_shot
        if accuracy is None or z is None:
            return None
        return float(np.clip((accuracy - z) / (1 - z), 0, 1))

    def tuned(self, budget: int, seeds: Sequence[int], *, label: bool = False) -> float:
        """The measured score at a budget, mean over seeds."""
        scores = self.scores.label if label else self.scores.strict
        return float(np.mean([scores[budget, seed] for seed in seeds]))


def results(
    lines: Lines, tasks: Sequence[TaskScores], new: Sequence[str], old: Sequence[str]
) -> str:
    """Every table, in the order of the plan."""
    found = _joined(lines, tasks, (*new, *old))
    groups = {"All": (*new, *old), "New": new, "Old": old}
    rows = {title: _rows(found, names) for title, names in groups.items()}
    parts = [_status(found, rows)]
    for draw in ("random", "low", "more"):
        if any(draw in one.lines for one in found.values()):
            parts += [f"### The rows drawn as *{draw}*\n", _task_table(found, new, draw)]
    parts += [
        "### What each quantity is worth\n",
        _worth_tables(rows),
        "### The new tasks from the old ones' line\n",
        _transfer(found, new, old),
        "### Against the accuracy that was measured\n",
        _agreement(found),
        "### Labels moved to another answer\n",
        _moved(found),
        "### The cut to fewer answers\n",
        _cuts(found),
        "### Cost\n",
        _cost(found),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts if part)


def _joined(lines: Lines, tasks: Sequence[TaskScores], names: Sequence[str]) -> dict[str, Found]:
    by_name = {task.name: task for task in tasks}
    area = dict(zip(by_name, areas(tasks, SETUP, *PRIMARY), strict=True))
    found: dict[str, Found] = {}
    for name in names:
        mine = {draw: line for (task, draw), line in lines.items() if task == name}
        known = area[name]
        if known is not None:
            found[name] = Found(by_name[name], known, mine)
    return found


Predictor = Callable[[Found], float | None]


def _kernel(draw: str, of: Callable[[Line], float]) -> Predictor:
    return lambda task: task.gained(of(task.lines[draw])) if draw in task.lines else None


def accuracy(line: Line) -> float:
    """Leave-one-out accuracy."""
    return float(line["kernel"]["accuracy"])


def curve_area(task: Found, draw: str = "random") -> float | None:
    """The area under the kernel's own curve from the zero-shot score, held level to 512 labels."""
    if draw not in task.lines:
        return None
    points = [(p["n"], task.gained(p["accuracy"])) for p in task.lines[draw]["kernel"]["curve"]]
    x = np.array([0.0, *(np.log2(n) for n, _ in points), 9.0]) / 9
    y = np.maximum.accumulate([0.0, *(g or 0.0 for _, g in points), 0.0])
    return float(np.trapezoid(y, x))


def _lines_of_sensitivity(ridge: float) -> Callable[[Line], float]:
    return lambda line: dict(map(tuple, line["kernel"]["sensitivity"]))[ridge]


PREDICTORS: dict[str, Predictor] = {
    "**kernel, 32 random rows**": _kernel("random", accuracy),
    "accuracy itself": lambda t: accuracy(t.lines["random"]) if "random" in t.lines else None,
    "macro F1": _kernel("random", lambda line: line["kernel"]["macro_f1"]),
    "area of the kernel's curve": curve_area,
    "kernel, first 16 random rows": _kernel("random", lambda line: line["first_16"]),
    "kernel, 32 low-confidence rows": _kernel("low", accuracy),
    "lambda .001": _kernel("random", _lines_of_sensitivity(0.001)),
    "lambda .01": _kernel("random", _lines_of_sensitivity(0.01)),
    "lambda 1": _kernel("random", _lines_of_sensitivity(1.0)),
    "probe of hidden states, 32 random rows": _kernel("random", lambda line: line["probe"]),
}
MAIN = "**kernel, 32 random rows**"


def _rows(found: Mapping[str, Found], names: Sequence[str]) -> list[Row]:
    """Every predictor over the tasks of `names` whose random draw is measured."""
    tasks = [found[n] for n in names if n in found and "random" in found[n].lines]
    auc: list[float | None] = [task.area for task in tasks]
    columns = {name: [of(task) for task in tasks] for name, of in PREDICTORS.items()}
    columns |= {name: values([task.scores for task in tasks], name) for name in BESIDE}
    rows = [worth(name, column, auc) for name, column in columns.items()]
    others: list[float | None] = [_area_of_seeds(task, (1, 2)) for task in tasks]
    pilot: list[float | None] = [task.gained(task.tuned(32, (0,))) for task in tasks]
    rows.append(worth("real fine-tune at 32 (other seeds' area)", pilot, others))
    return [row for row in rows if row is not None]


def _area_of_seeds(task: Found, seeds: Sequence[int]) -> float | None:
    curve = task.scores.curve(*PRIMARY, SETUP.cap, seeds)
    return None if curve is None else curve.auc


def verdict(every: Mapping[str, Row], fresh: Mapping[str, Row]) -> str:
    """The plan's four conditions."""
    main, own = every[MAIN], fresh[MAIN]
    on_new = own.r_interval is not None and own.r_interval[0] > 0
    on_all = main.r_interval is not None and main.r_interval[0] > 0
    if on_new and on_all and main.mae < main.mean_mae and main.mae < every["CoS-Low"].mae:
        return "holds"
    if on_all and not on_new:
        return "holds in part, on tasks already looked at"
    return "does not hold"


def _status(found: Mapping[str, Found], rows: Mapping[str, Sequence[Row]]) -> str:
    missing = {
        draw: [name for name, task in found.items() if draw not in task.lines]
        for draw in ("random", "low", "more")
    }
    gaps = "; ".join(
        f"{draw}: " + ("all" if len(names) == len(found) else ", ".join(names))
        for draw, names in missing.items()
        if names
    )
    said = f" Not measured: {gaps}." if gaps else ""
    if missing["random"]:
        return f"**Interim**: no verdict without all {len(found)} random draws.{said}"
    every, fresh = ({row.name: row for row in rows[title]} for title in ("All", "New"))
    return (
        f"By the plan's conditions the kernel at 32 random labels **{verdict(every, fresh)}** as a "
        f"predictor of data efficiency on this model.{said}"
    )


def _task_table(found: Mapping[str, Found], new: Sequence[str], draw: str) -> str:
    header = ["task", "answers", "zero-shot", "accuracy [80 %]", "macro F1", "at 4", "at 16"]
    header += ["probe", "fine-tune at 32", "at 128", "at 512", "area", "cosine (archive)"]
    rows: list[list[str]] = []
    for name, task in found.items():
        if draw not in task.lines:
            continue
        line = task.lines[draw]
        kernel, signal = line["kernel"], task.scores.signal
        curve = {point["n"]: point["accuracy"] for point in kernel["curve"]}
        known = {"random": signal["random_cosine"], "low": signal["cos_low"]}.get(draw)
        rows.append(
            [
                f"*{name}*" if name in new else name,
                str(len(kernel["answers"])),
                number(task.scores.zero_shot),
                number(kernel["accuracy"]) + interval(tuple(kernel["interval"])),
                number(kernel["macro_f1"]),
                number(curve[4]),
                number(curve[16]),
                number(line["probe"]),
                *(number(task.tuned(n, SETUP.seeds, label=True)) for n in (32, 128, 512)),
                number(task.area),
                f"{number(line['cosine'], 3)} ({number(known, 3)})",
            ]
        )
    note = "New tasks in italics; fine-tunes among the task's labels, mean of three seeds.\n"
    return f"{note}\n{table(header, rows)}"


def _worth_tables(rows: Mapping[str, Sequence[Row]]) -> str:
    parts = ["Strict area, ceiling 1.0; intervals over tasks; logit line, leave one task out.\n"]
    header = ["predictor", "tasks", "r [95 %]", "rho [95 %]", "left-out error", "of the mean"]
    for title, found in rows.items():
        lines = [
            [
                row.name,
                str(row.n),
                number(row.r, sign=True) + interval(row.r_interval),
                number(row.rho, sign=True) + interval(row.rho_interval),
                number(row.mae, 3),
                number(row.mean_mae, 3),
            ]
            for row in found
        ]
        if lines:
            parts.append(f"**{title} tasks**\n\n{table(header, lines)}")
    return "\n".join(parts)


def _transfer(found: Mapping[str, Found], new: Sequence[str], old: Sequence[str]) -> str:
    fitted = [found[n] for n in old if "random" in found[n].lines]
    asked = [found[n] for n in new if "random" in found[n].lines]
    if len(fitted) < 4 or not asked:
        return "Needs both; not measured yet."
    target = np.array([t.area for t in fitted])
    truth = np.array([t.area for t in asked])
    rows = [["mean of the old tasks", number(float(np.mean(np.abs(truth - target.mean()))), 3)]]
    ways = {
        MAIN: PREDICTORS[MAIN],
        "CoS-Low": lambda task: task.scores.signal["cos_low"],
    }
    for name, of in ways.items():
        x, at = (np.array([of(t) for t in group], dtype=float) for group in (fitted, asked))
        line = fit_line("logit", x, target)
        missed = np.abs(truth - np.array([line.auc(float(v)) for v in at]))
        rows.append([name, number(float(missed.mean()), 3)])
    return table([f"from {len(fitted)} old tasks to {len(asked)} new ones", "error"], rows)


def _agreement(found: Mapping[str, Found]) -> str:
    rows: list[list[str]] = []
    for draw in ("random", "low"):
        tasks = [task for task in found.values() if draw in task.lines]
        if len(tasks) < 4:
            continue
        own = np.array([accuracy(task.lines[draw]) for task in tasks])
        row = [draw, str(len(tasks))]
        for budget in (32, 128, 512):
            measured = np.array([task.tuned(budget, SETUP.seeds, label=True) for task in tasks])
            row.append(
                f"{number(pearson(own, measured), sign=True)}, "
                f"{number(float(np.mean(own - measured)), 3, sign=True)}, "
                f"{number(float(np.mean(np.abs(own - measured))), 3)}"
            )
        rows.append(row)
    header = ["rows", "tasks", "32 labels: r, bias, error", "128", "512"]
    return table(header, rows) if rows else "Not measured yet."


def _moved(found: Mapping[str, Found]) -> str:
    """Label noise, by how well the kernel does on the labels as they are."""
    rows: list[list[str]] = []
    groups = {"accuracy >= .6": lambda a: a >= 0.6, "accuracy < .6": lambda a: a < 0.6}
    for title, belongs in groups.items():
        lines = [
            line
            for task in found.values()
            for draw, line in task.lines.items()
            if draw == "random" and belongs(accuracy(line))
        ]
        if not lines:
            continue
        for share in ("0.1", "0.2", "0.3"):
            mean = {
                key: float(np.mean([line["moved"][share][key] for line in lines]))
                for key in ("auroc", "found", "accuracy")
            }
            clean = float(np.mean([accuracy(line) for line in lines]))
            rows.append(
                [
                    title,
                    str(len(lines)),
                    f"{float(share):.0%}",
                    number(mean["auroc"]),
                    number(mean["found"]),
                    f"{number(clean)} -> {number(mean['accuracy'])}",
                ]
            )
    header = ["tasks whose own", "number", "moved", "AUROC", "of the least likely"]
    return table([*header, "accuracy on the labels as given"], rows) if rows else ""


def _cuts(found: Mapping[str, Found]) -> str:
    rows = [
        [name, str(len(line["kernel"]["answers"])), number(accuracy(line))]
        + [number(line["cut"].get(str(most))) for most in (8, 4)]
        for name, task in found.items()
        for draw, line in task.lines.items()
        if draw == "random" and line["cut"]
    ]
    return table(["task", "answers", "all", "cut to 8", "cut to 4"], rows) if rows else ""


def _cost(found: Mapping[str, Found]) -> str:
    lines = [line for task in found.values() for line in task.lines.values()]
    if not lines:
        return "Not measured yet."
    per_answers: dict[int, list[Line]] = {}
    for line in lines:
        per_answers.setdefault(len(line["kernel"]["answers"]), []).append(line)
    rows: list[list[str]] = []
    for answers, some in sorted(per_answers.items()):
        kernel = float(np.mean([line["seconds"]["kernel"] for line in some]))
        own = float(np.mean([line["seconds"]["cos_low"] for line in some]))
        ratio = [line["seconds"]["kernel"] / line["seconds"]["cos_low"] for line in some]
        rows.append([str(answers), str(len(some)), f"{kernel:.0f}", f"{own:.0f}"])
        rows[-1].append(f"{float(np.median(ratio)):.1f}")
    header = ["answers", "measurements", "32 rows, all answers, s", "CoS-Low's 32, s", "ratio"]
    return (
        "Wall clock of one thread on a core shared with other work, so only the ratio says much; "
        f"nothing uses yet that the answers of a row share its prompt.\n\n{table(header, rows)}"
    )
