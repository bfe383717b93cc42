"""Results in the layout of the paper's repository -> curves with the paper's own AUCs.

A results folder holds one ``{task}.json`` a task: budget -> {metric: value}. A ceilings file
maps task -> {"score": number or null}. Source: arXiv 2512.24991 and its published results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np

from taskeff.curves.curve import CurvePoint, TaskCurve, data_efficiency
from taskeff.errors import DataError
from taskeff.schema import decoded

_METRICS = ("accuracy", "exact_string_match_accuracy")


def import_results(
    directory: str | Path, ceilings: str | Path | None = None, *, cap: int = 5000
) -> dict[str, Any]:
    """The published data efficiencies of a results folder (`taskeff curves import`).

    Args:
        directory: folder of ``{task}.json`` files.
        ceilings: file of a-priori ceilings; without it every ceiling is the best score.
        cap: the largest budget considered, in labels.

    Returns:
        JSON-ready ``{"cap", "mode", "tasks": {name: {"auc", "zero_shot", "ceiling", "points",
        ...}}, "dropped": {name: reason}}``; see `TaskCurve.to_dict` for a task's fields.

    Raises:
        DataError: naming file, row and fix.
    """
    curves, dropped = read_curves(directory, ceilings, cap=cap)
    return {
        "cap": cap,
        "mode": "published",
        "tasks": {name: curve.to_dict() for name, curve in curves.items()},
        "dropped": dropped,
    }


def summarise_import(found: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """One row per task of an `import_results`, highest area first (`taskeff curves show`).

    Args:
        found: what `import_results` returned.
        where: its file, for messages.

    Returns:
        Rows of ``task, auc, zero_shot, ceiling, labels_80, labels_90``; the last two are labels
        at that share of the range, None when the curve never gets there.

    Raises:
        DataError: it is not such a result.
    """
    try:
        rows = [
            {
                "task": name,
                "auc": float(task["auc"]),
                "zero_shot": float(task["zero_shot"]),
                "ceiling": float(task["ceiling"]),
                **{
                    f"labels_{share}": curve_from_dict(task).labels_to_reach(share / 100)
                    for share in (80, 90)
                },
            }
            for name, task in found["tasks"].items()
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{where}: is not a file of `taskeff curves import` ({error!r}); import the folder"
        ) from None
    return sorted(rows, key=lambda row: (-row["auc"], row["task"]))


def curve_from_dict(value: Mapping[str, Any]) -> TaskCurve:
    """The curve whose `TaskCurve.to_dict` this is."""
    points: list[Mapping[str, Any]] = value["points"]
    kept = ("name", "mode", "auc", "zero_shot", "ceiling", "cap", "carried_share")
    return TaskCurve(
        points=tuple(CurvePoint(*(p[f.name] for f in fields(CurvePoint))) for p in points),
        x=np.array([p["x"] for p in points], dtype=np.float64),
        y=np.array([p["y"] for p in points], dtype=np.float64),
        **{name: value[name] for name in kept},
    )


def read_curves(
    directory: str | Path,
    ceilings: str | Path | None = None,
    *,
    cap: int = 5000,
) -> tuple[dict[str, TaskCurve], dict[str, str]]:
    """Every task's curve, by name, and the tasks left out with the reason.

    As in the paper's own computation, a task whose ceiling is not a number, or with fewer than
    two budgets on the curve, is left out rather than guessed at.

    Raises:
        DataError: naming file, row and fix.
    """
    known = read_ceilings(ceilings) if ceilings is not None else {}
    curves: dict[str, TaskCurve] = {}
    dropped: dict[str, str] = {}
    for name, scores in read_scores(directory).items():
        ceiling = known.get(name)
        if isinstance(ceiling, str):
            dropped[name] = f"its ceiling is the text {ceiling!r}, not a number"
            continue
        if sum(n == 0 or 50 <= n <= cap for n in scores) < 2:
            dropped[name] = f"fewer than two of its budgets are 0 or 50-{cap}"
            continue
        curves[name] = data_efficiency(
            scores, cap=cap, ceiling=ceiling, mode="published", name=name
        )
    return curves, dropped


def read_scores(directory: str | Path) -> dict[str, dict[int, float]]:
    """Task -> budget -> score, from a folder of published results files.

    A task whose rows carry ``f1`` is free-text generation and uses it; the others use
    ``accuracy``, and ``exact_string_match_accuracy`` in rows without it.

    Raises:
        DataError: no such folder, no file in it, a file that is not JSON, or a row without score.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; name the folder that holds the {{task}}.json")
    files = sorted(folder.glob("*.json"))
    if not files:
        raise DataError(f"{folder}: holds no .json file; expected one {{task}}.json a task")
    return {file.stem: read_task_scores(file) for file in files}


def read_ceilings(path: str | Path) -> dict[str, float | str | None]:
    """Task -> ceiling as the file has it: a number, None when unknown, text where it is no number.

    Raises:
        DataError: the file is missing, not JSON, or has an entry without ``score``.
    """
    table = _read_object(Path(path))
    ceilings: dict[str, float | str | None] = {}
    for name, entry in table.items():
        if not isinstance(entry, Mapping) or "score" not in entry:
            raise DataError(f'{path}, task {name!r}: expected {{"score": number or null}}')
        score = cast("Mapping[str, Any]", entry)["score"]
        if score is None or isinstance(score, str):
            ceilings[name] = score
        elif isinstance(score, int | float) and not isinstance(score, bool) and 0 < score <= 1:
            ceilings[name] = float(score)
        else:
            raise DataError(f"{path}, task {name!r}: the ceiling {score!r} is not in (0, 1]")
    return ceilings


def read_task_scores(file: str | Path) -> dict[int, float]:
    """Budget -> score of one result file; see `read_scores`.

    Raises:
        DataError: naming file, row and fix.
    """
    file = Path(file)
    rows = _read_object(file)
    generation = any(isinstance(row, Mapping) and "f1" in row for row in rows.values())
    metrics = ("f1",) if generation else _METRICS
    scores: dict[int, float] = {}
    for key, row in rows.items():
        if not key.isdecimal():
            raise DataError(f"{file}, row {key!r}: a row is named by its budget, a whole number")
        found: Mapping[str, Any] = (
            cast("Mapping[str, Any]", row) if isinstance(row, Mapping) else {}
        )
        value = next((found[m] for m in metrics if found.get(m) is not None), None)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise DataError(f"{file}, row {key!r}: no {' or '.join(metrics)}; add the score")
        if not 0.0 <= value <= 1.0:
            raise DataError(f"{file}, row {key!r}: the score {value} is not in [0, 1]")
        scores[int(key)] = float(value)
    return scores


def _read_object(file: Path) -> dict[str, Any]:
    try:
        value = decoded(file.read_bytes(), finite=False)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); check the path") from None
    except ValueError as error:
        raise DataError(f"{file}: is not JSON ({error}); write it again") from None
    if not isinstance(value, dict):
        raise DataError(f"{file}: expected one JSON object, found {type(value).__name__}")
    return cast("dict[str, Any]", value)
