"""One picture of an estimate: the likely curve, its band, the pilots and the target."""

# pyright: basic
# matplotlib declares few of its types.

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from taskeff.errors import EstimateError
from taskeff.estimate.budget import LEVEL, Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_estimate(estimate: Estimate, path: str | Path) -> None:
    """Draw the predicted curve with its bands into an SVG or PNG file.

    The same estimate gives the same bytes. Pilots are drawn where zero-shot and ceiling are both
    known, which is what turns a score into a share of the range.

    Raises:
        EstimateError: the path ends in neither .svg nor .png, or cannot be written.
    """
    file = Path(path)
    if file.suffix not in (".svg", ".png"):
        raise EstimateError(f"{file}: the plot is drawn as .svg or .png; end the name so")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    budgets = np.geomspace(1, estimate.cap, 200).tolist()
    drawn = estimate.curve(budgets)
    # A fixed salt and no date: the same figure is the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "taskeff"}):
        figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
        for level, ends in reversed((drawn["band"] or {}).items()):
            axes.fill_between(
                budgets, ends["low"], ends["high"], color="C0", alpha=0.16, lw=0, label=f"{level} %"
            )
        axes.plot(budgets, drawn["share"], "C0", label="labels needed")
        axes.axhline(estimate.target, color="0.5", ls=":", label=f"target {estimate.target:.3g}")
        if estimate.labels_needed is not None:
            _labels_needed(axes, estimate)
        if estimate.pilots and estimate.zero_shot is not None and estimate.ceiling is not None:
            room = estimate.ceiling - estimate.zero_shot
            shares = [(p.score - estimate.zero_shot) / room for p in estimate.pilots]
            axes.plot([p.budget for p in estimate.pilots], shares, "ko", label="pilots")
        axes.set_xscale("log", base=2)
        ticks = [2**k for k in range(0, int(math.log2(estimate.cap)) + 1, 2)]
        axes.set_xticks(ticks, [str(n) for n in ticks])
        axes.set(xlabel="labels", ylabel="share of zero-shot to ceiling", xlim=(1, estimate.cap))
        axes.legend(frameon=False, fontsize=8, loc="upper left")
        try:
            figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
        except OSError as error:
            raise EstimateError(f"{file}: cannot be written ({error.strerror})") from None
        finally:
            plt.close(figure)


def _labels_needed(axes: Axes, estimate: Estimate) -> None:
    needed = estimate.labels_needed
    assert needed is not None
    if estimate.intervals is not None:
        low, end = estimate.intervals[LEVEL]
        high = float(estimate.cap) if end is None else end
        axes.plot([low, high], [estimate.target] * 2, "C1", lw=3, alpha=0.5)
    label = f"{needed:.0f} labels"
    axes.plot([needed], [estimate.target], "C1D", label=label)
