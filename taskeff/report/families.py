"""Several families side by side: what CoS-Low is worth on each."""

from __future__ import annotations

from collections.abc import Mapping

from taskeff.estimate.calibration import Calibration
from taskeff.report import html, sentences
from taskeff.storage import Store

PAGE = "families.html"


def write_comparison(store: Store, families: Mapping[str, Calibration]) -> str:
    """Publish `families.html`; returns its path.

    Args:
        families: run -> its calibration, which has tasks.
    """
    store.write_bytes(render(families).encode(), PAGE)
    return store.path(PAGE)


def render(families: Mapping[str, Calibration]) -> str:
    """The page as text; the same calibrations give the same bytes."""
    return html.page(
        "families.html.j2",
        html.asset("page.css"),
        families=families,
        verdicts={name: sentences.verdict(one) for name, one in families.items()},
        words=sentences,
    )
