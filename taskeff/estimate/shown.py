"""What a notebook shows of an estimate and a calibration.

Data flows down the rooms, and the drawings are made above this one: they are taken when asked for.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Shown:
    """Draws itself in a notebook."""

    def _repr_html_(self) -> str:
        return _drawings().as_html(self)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """The drawing as a matplotlib figure, also written to `path` (.svg or .png) if given.

        Raises:
            TaskeffError: matplotlib is not installed, there is nothing to draw, or `path` cannot
                be written.
        """
        return _drawings().plot(self, path)


def _drawings() -> Any:
    return importlib.import_module("taskeff.report.notebook")
