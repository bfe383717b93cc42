"""Airports of the world and the cities they serve (airportsdata)."""

from __future__ import annotations

import random
from collections.abc import Mapping

from taskeff.errors import DataError
from taskeff.tasks.suite.sampling import Row, balanced, unambiguous

COLUMNS = ("name", "city")


def airports(
    rng: random.Random, *, column: str, countries: Mapping[str, str], per_label: int = 240
) -> list[Row]:
    """Airport names or cities; columns `place`, `label`.

    `column` is `name` or `city`; `countries` maps ISO 3166 codes to labels. Places found in two of
    the countries are left out. Raises DataError for another column or a country without airports.
    """
    from airportsdata import load

    if column not in COLUMNS:
        raise DataError(f"column: {column!r} is not one of {', '.join(COLUMNS)}")
    records = load("ICAO").values()
    unknown = set(countries) - {record["country"] for record in records}
    if unknown:
        raise DataError(f"countries: no airports in {', '.join(sorted(unknown))}")
    labelled = (
        (record[column], countries[record["country"]])
        for record in records
        if record["country"] in countries and record[column]
    )
    return balanced(rng, unambiguous(labelled, "place"), per_label)
