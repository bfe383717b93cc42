"""The report: one self-contained HTML page, no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Callable

from markupsafe import Markup, escape

from taskeff.report import figures, html, sentences, style
from taskeff.report.contents import ReportData
from taskeff.report.svg import Sheet, inline

WIDE, NARROW, HALF = 760, 350, 490


def render(data: ReportData) -> str:
    """The whole page as text; the same data gives the same bytes."""
    sheet = Sheet(style.VARIABLES)

    def drawn(
        draw: Callable[[ReportData, float], str], label: str, wide: float = WIDE
    ) -> dict[str, Markup]:
        """A figure for a desktop and for a phone; the style sheet shows one of them."""
        widths = {"wide": wide, "narrow": NARROW}
        return {
            size: inline(draw(data, width), f"{draw.__name__}-{size}", label, sheet)
            for size, width in widths.items()
        }

    scatter = drawn(
        figures.scatter,
        f"Scatter plot of data efficiency against CoS-Low for {len(data.tasks)} tasks, with the "
        f"fitted line; r is {sentences.number(data.signal.r)}. The values are in the tables below.",
    )
    controls = drawn(
        figures.controls,
        f"Correlation with AUC and its interval for CoS-Low and "
        f"{len(data.calibration.controls)} controls; the values are in the table beside it.",
        HALF,
    )
    labels = None
    if any(task.prediction.estimates for task in data.held_out):
        labels = drawn(
            figures.labels,
            f"Predicted and measured numbers of labels for {len(data.held_out)} held-out tasks; "
            "the values are in the table below.",
        )
    drawings = {
        task.name: inline(figures.curve(task), f"curve{i}", sentences.curve_label(task), sheet)
        for i, task in enumerate(data.tasks)
    }
    return html.page(
        "page.html.j2",
        html.asset("page.css") + sheet.css() + "\n",
        filters={"breakable": _breakable},
        data=data,
        words=sentences,
        verdict=sentences.verdict(data.calibration, data.held_out),
        answers=[sentences.answer(task) for task in data.held_out],
        # Held-out tasks first, then by AUC: neighbours in the grid then look alike.
        tasks=sorted(data.tasks, key=lambda task: (not task.held_out, -task.auc, task.name)),
        scatter=scatter,
        scatter_names=[task.name for task in figures.scatter_tasks(data)],
        wide_is_numbered=figures.scatter_is_numbered(data, WIDE),
        controls=controls,
        labels=labels,
        drawings=drawings,
    )


def _breakable(name: str) -> Markup:
    """A task's name that a narrow column may break after an underscore, not in mid-word."""
    return Markup("_<wbr>").join(escape(part) for part in name.split("_"))
