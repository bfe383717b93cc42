"""The report: one self-contained HTML page, no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup, escape

from taskeff.report import figures, html, sentences, style
from taskeff.report.contents import ReportData
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
    css = html.asset("page.css") + sheet.css() + "\n"
    return html.template("page.html.j2", breakable=_breakable).render(
        data=data,
        words=sentences,
        css=Markup(css),
        css_digest=html.digest(css),
        verdict=sentences.verdict(data.calibration, data.held_out),
        answers=[sentences.answer(task) for task in data.held_out],
        # Held-out tasks first, then by AUC: neighbours in the grid then look alike.
        tasks=sorted(data.tasks, key=lambda task: (not task.held_out, -task.auc, task.name)),
        **view,
    )


def _breakable(name: str) -> Markup:
    """A task's name that a narrow column may break after an underscore, not in mid-word."""
    return Markup("_<wbr>").join(escape(part) for part in name.split("_"))


def _figures(data: ReportData, sheet: Sheet) -> dict[str, object]:
    predicted = [task for task in data.held_out if task.prediction.estimates]
    return {
        "scatter": _both(figures.scatter, data, "scatter", _scatter_label(data), sheet),
        "scatter_names": [task.name for task in figures.scatter_tasks(data)],
        "wide_is_numbered": figures.scatter_is_numbered(data, WIDE),
        "controls": _both(figures.controls, data, "controls", _controls_label(data), sheet, HALF),
        "labels": _both(figures.labels, data, "labels", _labels_label(data), sheet)
        if predicted
        else None,
        "drawings": {
            task.name: inline(
                figures.curve(task), f"curve{index}", sentences.curve_label(task), sheet
            )
            for index, task in enumerate(data.tasks)
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
        f"Scatter plot of data efficiency against CoS-Low for {len(data.tasks)} tasks, with the "
        f"fitted line; r is {sentences.number(data.signal.r)}. The values are in the tables below."
    )


def _controls_label(data: ReportData) -> str:
    return (
        f"Correlation with AUC and its interval for CoS-Low and "
        f"{len(data.calibration.controls)} controls; the values are in the table beside it."
    )


def _labels_label(data: ReportData) -> str:
    return (
        f"Predicted and measured numbers of labels for {len(data.held_out)} held-out tasks; "
        "the values are in the table below."
    )
