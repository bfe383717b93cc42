"""One palette and one matplotlib style for every figure: blue is measured, ochre is predicted."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from taskeff.errors import EstimateError
from taskeff.storage import Store

INK, MUTED, RULE, PAPER = "#1d2126", "#666d76", "#d4d8dd", "#fcfcfa"
MEASURED, PREDICTED = "#1c5d99", "#b35c12"

# The drawings are made once; the page swaps these for its variables, which differ in dark mode.
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    PAPER: "--paper",
    MEASURED: "--measured",
    PREDICTED: "--predicted",
}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "taskeff",
    # A task may be called anything; a dollar sign in its name is not a formula.
    "text.parse_math": False,
    # The drawing's unit is then one CSS pixel.
    "figure.dpi": 72,
    "figure.facecolor": "none",
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": INK,
    "axes.facecolor": "none",
    "axes.edgecolor": RULE,
    "axes.linewidth": 1,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the house style without touching the caller's matplotlib."""
    # The defaults first: a matplotlibrc of the user's must not change a report.
    with matplotlib.rc_context(), warnings.catch_warnings():
        # The reader's browser draws the text, with fonts that this machine need not have.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def canvas(width: float, height: float, **margins: float) -> tuple[Figure, Axes]:
    """A figure of that many CSS pixels with one pair of axes; margins in pixels."""
    figure = Figure(figsize=(width / 72, height / 72))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(
        left=margins.get("left", 40) / width,
        right=1 - margins.get("right", 10) / width,
        bottom=margins.get("bottom", 36) / height,
        top=1 - margins.get("top", 8) / height,
    )
    return figure, figure.add_subplot()


def save(figure: Figure, path: str) -> None:
    """Write the figure to an SVG or PNG file; the same figure gives the same bytes.

    Raises:
        EstimateError: the path ends in neither .svg nor .png.
        StorageError: it cannot be written; what was there before is as it was.
    """
    file = Path(path)
    if file.suffix not in (".svg", ".png"):
        raise EstimateError(f"{file}: the plot is drawn as .svg or .png; end the name so")
    kind, buffer = file.suffix[1:], io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else None
    with styled():
        figure.savefig(buffer, format=kind, metadata=metadata, dpi=144)
    Store(str(file.parent)).write_bytes(buffer.getvalue(), file.name)


def drawn(figure: Figure) -> str:
    """The figure as SVG text, the same for the same figure."""
    buffer = io.StringIO()
    with styled():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def plain(name: str, limit: int = 26) -> str:
    """A task's name as a drawing can hold it: printable and not too long."""
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in name)
    return text if len(text) <= limit else text[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"
