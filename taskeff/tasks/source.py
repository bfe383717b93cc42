"""Where a task's rows come from: its files, a hub data set or a bundled builder."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from taskeff.errors import DataError, redact
from taskeff.tasks.examples import row_number
from taskeff.tasks.formats import plain
from taskeff.tasks.readers import OPTIONS, SourceRow, expanded, file_stamp, read_file
from taskeff.tasks.spec import TaskSpec

_BUILDER = "builder:"


def is_on_hub(spec: TaskSpec) -> bool:
    """Whether the rows come from the hub: from no file, builder or folder of that name."""
    path = spec.dataset_path
    return not (path in OPTIONS or path.startswith(_BUILDER) or is_folder(spec))


def is_folder(spec: TaskSpec) -> bool:
    """Whether the rows come from a folder of this machine."""
    path = spec.dataset_path
    return path not in OPTIONS and not path.startswith(_BUILDER) and os.path.isdir(path)


def source_rows(spec: TaskSpec, split: str, seed: int) -> Iterator[SourceRow]:
    """The raw rows of one split, in the source's order; a bad row is an error on that row.

    Args:
        seed: of a bundled builder; files and hub data sets have one order.

    Raises:
        DataError: the source as a whole cannot be read, naming it, and what to do.
    """
    if spec.dataset_path in OPTIONS:
        options = spec.file_options
        first = 0
        for path in source_files(spec, split):
            for row in read_file(path, spec.dataset_path, options, first=first):
                first = row.index + 1
                yield row
        return
    if spec.dataset_path.startswith(_BUILDER):
        from taskeff.tasks.suite import build

        name = spec.dataset_path.removeprefix(_BUILDER)
        rows: Iterable[Mapping[str, Any]] = build(name, seed, **spec.dataset_kwargs)
    else:
        rows = _hub_rows(spec, split)
    for index, values in enumerate(rows):
        yield SourceRow(index, row_name(spec, split, index), values)


def source_files(spec: TaskSpec, split: str) -> tuple[str, ...]:
    """The files of one split; none for a builder or a hub data set.

    Raises:
        DataError: no file is named for the split, or none matches.
    """
    if spec.dataset_path not in OPTIONS:
        return ()
    files: Any = spec.dataset_kwargs.get("data_files")
    if not isinstance(files, Mapping):
        files = {spec.training_split: files}
    if not files.get(split):
        raise DataError(f"no split {split!r}; there are: {', '.join(map(str, files))}")
    given = files[split]
    paths = [given] if isinstance(given, str) else map(str, given)
    return tuple(match for path in paths for match in expanded(path))


def source_stamp(spec: TaskSpec) -> list[dict[str, str]]:
    """Size and time or checksum of every training file, to notice that the source has changed.

    Raises:
        DataError: a file is missing or cannot be reached.
    """
    return [file_stamp(path) for path in source_files(spec, spec.training_split)]


def first_rows(spec: TaskSpec, n: int = 8) -> dict[str, list[SourceRow]]:
    """The first rows of every split of a hub data set, without downloading the rest.

    Raises:
        DataError: what cannot be read, and what to do.
    """
    return {
        split: [
            SourceRow(index, row_name(spec, split, index), values)
            for index, values in enumerate(
                itertools.islice(_hub_rows(spec, split, streaming=True), n)
            )
        ]
        for split in spec.splits
    }


def row_name(spec: TaskSpec, split: str, index: int) -> str:
    """A row as messages name it, with its file where the split is a single one."""
    files: Any = spec.dataset_kwargs.get("data_files")
    if isinstance(files, Mapping):
        files = files.get(split)
    while isinstance(files, list) and len(files) == 1:
        files = files[0]
    of = f" of {Path(files).name}" if isinstance(files, str) else ""
    return f"{split} row {index}{of}"


def row_of(spec: TaskSpec, id_: str) -> str:
    """The row that the example `id_` was rendered from, as messages name it."""
    return row_name(spec, id_.rpartition("-")[0], row_number(id_))


def _hub_rows(spec: TaskSpec, split: str, **how: Any) -> Iterator[Mapping[str, Any]]:
    import datasets
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    datasets.disable_progress_bars()
    if spec.dataset_path in _PACKAGED_DATASETS_MODULES:
        raise DataError(
            f"dataset_path {spec.dataset_path!r} is a reader of its own, not a data set; use csv, "
            "json or parquet"
        )
    try:
        loaded: Any = datasets.load_dataset(
            spec.dataset_path, spec.dataset_name, **spec.dataset_kwargs, **how
        )
        if split not in loaded:
            raise DataError(f"no split {split!r}; there are: {', '.join(map(str, loaded))}")
        yield from _with_label_names(loaded[split])
    except DataError:
        raise
    except Exception as error:
        raise DataError(_why(spec, error)) from error


def _with_label_names(split: Any) -> Iterator[Mapping[str, Any]]:
    """The rows of a data set, with `COLUMN_name` beside every column of class labels.

    A row that is not labelled (-1, as in hidden test sets) has an empty name. Values are read as
    Arrow holds them: pictures and sounds stay undecoded, in whatever they are nested.
    """
    # A stream without features in its card learns them from its first rows.
    features = split.features or split._resolve_features().features
    labels = {
        column: feature.names for column, feature in features.items() if hasattr(feature, "names")
    }
    for batch in split.with_format("arrow").iter(1000):
        for row in batch.to_pylist():
            named = {
                f"{column}_name": names[row[column]] if row[column] in range(len(names)) else ""
                for column, names in labels.items()
            }
            yield plain({**named, **row})


def _why(spec: TaskSpec, error: BaseException) -> str:
    first = _reason(error)
    if "gated" in first.lower():
        fix = "accept its terms on the hub and log in with `hf auth login`"
    elif "scripts are no longer supported" in first:
        fix = (
            "no data set's code is run: read the hub's own copy with "
            "dataset_kwargs: {revision: refs/convert/parquet}, or name another source"
        )
    else:
        fix = "check the id, dataset_name, the network and HF_HUB_OFFLINE"
    return f"cannot load dataset_path {spec.dataset_path!r}: {redact(first)}; {fix}"


def _reason(error: BaseException) -> str:
    # "An error occurred while generating the dataset" says nothing; what it was raised from does.
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
