"""The page of one answer, `taskeff predict --html`: one self-contained file, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from markupsafe import Markup

from taskeff.estimate import words
from taskeff.estimate.advice import Prices, Stop, stops
from taskeff.estimate.budget import Estimate
from taskeff.estimate.calibration import Calibration
from taskeff.estimate.contributions import Contribution, contributions
from taskeff.estimate.sharpen import Sharpening
from taskeff.report import estimate_figures, html, sentences, style
from taskeff.report.svg import Sheet, inline
from taskeff.storage import Store
from taskeff.version import version

WIDE, NARROW = 760, 350


@dataclass(frozen=True)
class AnswerData:
    """What the page shows.

    Attributes:
        calibration: the family asked.
        estimate: its answer.
        task: the task's name; "" where it is not known.
        outlook: of `taskeff.estimate.advice.outlook`: cost, advice and prices.
        value: what the whole way from zero-shot to the ceiling is worth; None if not given.
        asked: the arguments that `predict` was given, by name.
        options: what would sharpen the answer, the most first.
        sources: what the evidence was read from, by its name; for the provenance.
    """

    calibration: Calibration
    estimate: Estimate
    task: str
    outlook: Mapping[str, Any]
    value: float | None
    asked: Mapping[str, Any]
    options: Sequence[Sharpening]
    sources: Mapping[str, str]

    @cached_property
    def stops(self) -> list[Stop]:
        """What stopping at each budget means; empty without a posterior."""
        found = self.estimate.posterior
        if found is None:
            return []
        return stops(found, self.outlook["labelled"], prices=Prices(**self.outlook["prices"]))

    @cached_property
    def pieces(self) -> list[Contribution]:
        """What each piece of evidence adds."""
        return contributions(self.calibration, self.asked)

    @property
    def priced(self) -> bool:
        """Whether money or GPU-hours are counted."""
        return any(self.outlook["prices"].values())


def write_answer(data: AnswerData, path: Path) -> None:
    """Write the page.

    Raises:
        StorageError: it cannot be written; what was there before is as it was.
    """
    Store(str(path.parent)).write_bytes(render(data).encode(), path.name)


def render(data: AnswerData) -> str:
    """The page as text; the same answer gives the same bytes."""
    sheet = Sheet(style.VARIABLES)
    estimate = data.estimate

    def drawn(name: str, label: str) -> dict[str, Markup]:
        draw = getattr(estimate_figures, name)
        return {
            size: inline(draw(estimate, width), f"{name}-{size}", label, sheet)
            for size, width in (("wide", WIDE), ("narrow", NARROW))
        }

    curve = drawn("curve", f"Predicted learning curve. {words.headline(estimate)}")
    chance = None
    if estimate.posterior is not None:
        chance = drawn("chance", f"Chance of reaching the target over labels; {_chances(data)}.")
    return html.page(
        "answer.html.j2",
        html.asset("page.css") + sheet.css() + "\n",
        data=data,
        estimate=estimate,
        words=words,
        say=sentences,
        curve=curve,
        chance=chance,
        rows=[(stop, reached(estimate, stop.labels)) for stop in data.stops],
        version=version(),
    )


def reached(estimate: Estimate, labels: int) -> float:
    """The chance that the target is reached with so many labels; needs a posterior."""
    assert estimate.posterior is not None
    return float((estimate.posterior.labels(estimate.target) <= labels).mean())


def _chances(data: AnswerData) -> str:
    shown = (
        f"{100 * reached(data.estimate, s.labels):.0f} % with {s.labels:,}" for s in data.stops
    )
    return ", ".join(shown)
