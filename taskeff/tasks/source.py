"""Where a task's rows come from: a hub data set, local files or a bundled builder."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskeff.errors import DataError

if TYPE_CHECKING:
    from taskeff.tasks.task import TaskSpec

FILE_FORMATS = ("json", "csv", "parquet")
_BUILDER = "builder:"


def is_on_hub(spec: TaskSpec) -> bool:
    """Whether the rows come from the hub: from no file, builder or folder of that name."""
    path = spec.dataset_path
    return not (path in FILE_FORMATS or path.startswith(_BUILDER) or os.path.isdir(path))


def splits_of(spec: TaskSpec) -> list[str]:
    """Names of the source's splits that the task reads, training first."""
    return [s for s in (spec.training_split, spec.validation_split, spec.test_split) if s]


def source_rows(spec: TaskSpec, seed: int) -> dict[str, Iterable[Mapping[str, Any]]]:
    """Every split the task reads, as rows of columns.

    Args:
        seed: of a bundled builder; files and hub data sets have one order.

    Raises:
        DataError: what cannot be read, and what to do.
    """
    if spec.dataset_path.startswith(_BUILDER):
        from taskeff.tasks.suite import build

        name = spec.dataset_path.removeprefix(_BUILDER)
        return {spec.training_split: build(name, seed, **spec.dataset_kwargs)}
    loaded = _load(spec)
    return {split: with_label_names(loaded[split]) for split in splits_of(spec)}


def first_rows(spec: TaskSpec, n: int = 8) -> dict[str, list[Mapping[str, Any]]]:
    """The first rows of every split of a hub data set, without downloading the rest.

    Raises:
        DataError: what cannot be read, and what to do.
    """
    loaded = _load(spec, streaming=True)
    try:
        return {
            split: list(itertools.islice(with_label_names(loaded[split]), n))
            for split in splits_of(spec)
        }
    except _errors() as error:
        raise DataError(_why(spec, error)) from error


def _load(spec: TaskSpec, **how: Any) -> Any:
    import datasets

    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(
            spec.dataset_path, spec.dataset_name, **spec.dataset_kwargs, **how
        )
    except _errors() as error:
        raise DataError(_why(spec, error)) from error
    for split in splits_of(spec):
        if split not in loaded:
            raise DataError(f"no split {split!r}; there are: {', '.join(map(str, loaded))}")
    return loaded


def _errors() -> tuple[type[Exception], ...]:
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    return OSError, ValueError, RuntimeError, TypeError, HfHubHTTPError, DatasetsError


def with_label_names(split: Any) -> Iterator[Mapping[str, Any]]:
    """The rows of a data set, with `COLUMN_name` beside every column of class labels.

    A row that is not labelled (-1, as in hidden test sets) has an empty name.
    """
    # A stream without features in its card learns them from its first rows.
    features = split.features or split._resolve_features().features
    labels = {
        column: feature.names for column, feature in features.items() if hasattr(feature, "names")
    }
    for row in split:
        named = {
            f"{column}_name": names[row[column]] if row[column] in range(len(names)) else ""
            for column, names in labels.items()
        }
        yield {**named, **row}


def row_name(spec: TaskSpec, split: str, index: int) -> str:
    """A row as messages name it, with its file where the split is a single one."""
    files: Any = spec.dataset_kwargs.get("data_files")
    if isinstance(files, Mapping):
        files = files.get(split)
    while isinstance(files, list) and len(files) == 1:
        files = files[0]
    of = f" of {Path(files).name}" if isinstance(files, str) else ""
    return f"{split} row {index}{of}"


def with_local_files(spec: TaskSpec, folder: Path) -> TaskSpec:
    """The task with its relative `data_files` read from `folder`, that of its task file.

    Raises:
        DataError: a file does not exist, or a file format comes without files.
    """
    if spec.dataset_path not in FILE_FORMATS:
        return spec
    files: Any = spec.dataset_kwargs.get("data_files")
    if not files:
        raise DataError(f"dataset_path {spec.dataset_path!r} needs dataset_kwargs.data_files")
    located = {**spec.dataset_kwargs, "data_files": _located(files, folder)}
    return spec.model_copy(update={"dataset_kwargs": located})


def _located(value: Any, folder: Path) -> Any:
    if isinstance(value, Mapping):
        return {key: _located(item, folder) for key, item in value.items()}  # type: ignore[misc]
    if isinstance(value, list):
        return [_located(item, folder) for item in value]  # type: ignore[misc]
    if "://" in str(value):
        return value
    path = folder / str(value)
    if not path.is_file() and not any(folder.glob(str(value))):
        raise DataError(f"data file {path} does not exist; data_files are relative to {folder}")
    return str(path)


def _why(spec: TaskSpec, error: BaseException) -> str:
    first = _reason(error)
    if "gated" in first.lower():
        fix = "accept its terms on the hub and log in with `hf auth login`"
    elif "scripts are no longer supported" in first:
        fix = (
            "no data set's code is run: read the hub's own copy with "
            "dataset_kwargs: {revision: refs/convert/parquet}, or name another source"
        )
    elif is_on_hub(spec):
        fix = "check the id, dataset_name, the network and HF_HUB_OFFLINE"
    else:
        files = spec.dataset_kwargs.get("data_files")
        return f"cannot read {files} as {spec.dataset_path}: {first}; mend or replace the file"
    return f"cannot load dataset_path {spec.dataset_path!r}: {first}; {fix}"


def _reason(error: BaseException) -> str:
    # "An error occurred while generating the dataset" says nothing; what it was raised from does.
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
