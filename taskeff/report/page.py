"""The report: one self-contained HTML page, no script, nothing fetched."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from taskeff.report import figures, style, words
from taskeff.report.data import ReportData, TaskCurve
from taskeff.report.svg import Sheet, inline

WIDE, NARROW, HALF = 760, 350, 490


@dataclass(frozen=True)
class Figure:
    """One figure drawn for a desktop and for a phone; the style sheet shows one of them."""

    wide: Markup
    narrow: Markup


def render(data: ReportData) -> str:
    """The whole page as text; the same data gives the same bytes."""
    sheet = Sheet(style.VARIABLES)
    view = _figures(data, sheet)
    css = _asset("page.css") + sheet.css() + "\n"
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    environment = Environment(
        loader=PackageLoader("taskeff.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    return environment.get_template("page.html.j2").render(
        data=data,
        words=words,
        css=Markup(css),
        css_digest=digest,
        verdict=words.verdict(data),
        answers=[words.answer(held_out, data) for held_out in data.held_out],
        curves=_ordered(data),
        **view,
    )


def _breakable(name: str) -> Markup:
    """A task's name that a narrow column may break after an underscore, not in mid-word."""
    return Markup("_<wbr>").join(escape(part) for part in name.split("_"))


def _ordered(data: ReportData) -> list[TaskCurve]:
    """Held-out tasks first, then by AUC: neighbours in the grid then look alike."""
    return sorted(data.curves, key=lambda c: (c.role != "held_out", -(c.auc or 0.0), c.name))


def _figures(data: ReportData, sheet: Sheet) -> dict[str, object]:
    tasks, targets = figures.scatter_tasks(data), [t for h in data.held_out for t in h.targets]
    cap = data.calibration.cap
    return {
        "scatter": _both(figures.scatter, data, "scatter", _scatter_label(data), sheet),
        "scatter_names": [task.name for task in tasks],
        "wide_is_numbered": figures.scatter_is_numbered(data, WIDE),
        "controls": _both(figures.controls, data, "controls", _controls_label(data), sheet, HALF),
        "labels": _both(figures.labels, data, "labels", _labels_label(data), sheet)
        if targets
        else None,
        "drawings": {
            task.name: inline(
                figures.curve(task, cap), f"curve{index}", words.curve_label(task), sheet
            )
            for index, task in enumerate(data.curves)
        },
    }


def _both(
    draw: Callable[[ReportData, float], str],
    data: ReportData,
    key: str,
    label: str,
    sheet: Sheet,
    wide: float = WIDE,
) -> Figure:
    return Figure(
        inline(draw(data, wide), f"{key}-wide", label, sheet),
        inline(draw(data, NARROW), f"{key}-narrow", label, sheet),
    )


def _scatter_label(data: ReportData) -> str:
    return (
        f"Scatter plot of data efficiency against CoS-Low for {len(data.curves)} tasks, with the "
        f"fitted line; r is {words.number(data.signal.r)}. The values are in the tables below."
    )


def _controls_label(data: ReportData) -> str:
    return (
        f"Correlation with AUC and its interval for CoS-Low and "
        f"{len(data.controls)} controls; the values are in the table beside it."
    )


def _labels_label(data: ReportData) -> str:
    return (
        f"Predicted and measured numbers of labels for {len(data.held_out)} held-out tasks; "
        "the values are in the table below."
    )


def _asset(name: str) -> str:
    return resources.files("taskeff.report").joinpath(name).read_text(encoding="utf-8")
