"""What a notebook shows of an estimate or a calibration: sentences and a drawing, in one piece.

The drawing is an image in the text: nothing is fetched, and no style reaches the rest of the page.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from taskeff.errors import EstimateError
from taskeff.estimate import words
from taskeff.estimate.budget import Estimate
from taskeff.estimate.calibration import Calibration
from taskeff.report import sentences

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 700


def as_html(shown: Estimate | Calibration) -> str:
    """A piece of HTML; without matplotlib it has the words alone."""
    if isinstance(shown, Estimate):
        said = [words.headline(shown), words.uncertainty(shown), words.efficiency(shown)]
    else:
        said = [words.family(shown), *([sentences.works(shown)] if shown.evidence else ())]
    first, *others = said
    lines = Markup("").join(Markup("<br>{}").format(line) for line in others)
    return Markup("<div><p><strong>{}</strong>{}</p>{}{}</div>").format(
        first, lines, _image(shown, first), _warnings(shown.warnings)
    )


def plot(shown: Estimate | Calibration, path: str | os.PathLike[str] | None = None) -> Figure:
    """The drawing, also written to `path` if given.

    Raises:
        TaskeffError: matplotlib is not installed, there is nothing to draw, or `path` cannot be
            written.
    """
    try:
        from taskeff.report import calibration_figure, estimate_figures, style
    except ModuleNotFoundError as error:
        raise EstimateError(
            f"a drawing needs the package {error.name!r}: pip install {error.name}"
        ) from None
    with style.styled():
        if isinstance(shown, Estimate):
            figure = estimate_figures.alone(shown, WIDTH)
        else:
            figure = calibration_figure.alone(shown, WIDTH)
    if path is not None:
        style.save(figure, os.fspath(path))
    return figure


def _image(shown: Estimate | Calibration, label: str) -> Markup:
    try:
        figure = plot(shown)
    except EstimateError as error:
        return Markup("<p>{}</p>").format(error)
    from taskeff.report.style import drawn

    data = base64.b64encode(drawn(figure).encode()).decode()
    image = '<img alt="{}" style="max-width:100%" src="data:image/svg+xml;base64,{}">'
    return Markup(image).format(label, data)


def _warnings(warnings: Sequence[str]) -> Markup:
    items = Markup("").join(Markup("<li>{}</li>").format(warning) for warning in warnings)
    return Markup("<ul>{}</ul>").format(items) if warnings else Markup("")
