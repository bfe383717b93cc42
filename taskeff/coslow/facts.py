"""What a candidate's artefacts tell of it: counts, and sentences that a reader should know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskeff.config import CosLowConfig
from taskeff.coslow.candidates import Candidate, published


def facts(
    candidate: Candidate, pool: Mapping[str, Any] | None, status: str, settings: CosLowConfig
) -> dict[str, Any]:
    """rows, unscored, duplicates, mean_confidence, warnings and, once measured, result.

    Args:
        pool: `scored_pool`, None where it is not.
        status: `choose`'s answer.
    """
    pool = pool or {}
    found: dict[str, Any] = {key: pool.get(key) for key in ("rows", "unscored", "duplicates")}
    found["warnings"] = _pool_warnings(pool)
    if status in ("measured", "awaiting_labels"):
        selection = published(candidate.folder, "selection.json") or {}
        found["mean_confidence"] = selection.get("mean_confidence")
        found["warnings"] += _draw_warnings(selection, settings)
    if status == "measured":
        found["result"] = candidate.folder.read_json("result.json")
        found["warnings"] += _example_warnings(found["result"])
    return found


def _pool_warnings(pool: Mapping[str, Any]) -> list[str]:
    if not pool:
        return []
    found: list[str] = []
    if pool["unscored"]:
        first = f": {pool['problems'][0]}" if pool["problems"] else ""
        found.append(f"{pool['unscored']} of {pool['rows']} rows have no confidence{first}")
    total = pool["rows"] + pool["duplicates"]
    if pool["duplicates"] > 0.01 * total:
        found.append(f"{pool['duplicates']} of {total} rows repeat another and were left out")
    return found


def _draw_warnings(selection: Mapping[str, Any], settings: CosLowConfig) -> list[str]:
    share = selection["candidates"] / selection["n_scored"]
    if share <= 1.5 * settings.quantile:
        return []
    return [
        f"a small pool: the examples are from its least confident {100 * share:.0f} %, not "
        f"{100 * settings.quantile:g} %"
    ]


def _example_warnings(result: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    if result["excluded"]:
        found.append(f"{len(result['excluded'])} examples have no gradient and were left out")
    if result["same_gradient"]:
        found.append(f"{result['same_gradient']} pairs of examples have the same gradient")
    if result["labels_seen"] == 1:
        found.append("all examples have one and the same label")
    return found
