"""Ask the hub about what a run names there: ids, revisions, files, configurations, columns.

Nothing is downloaded but lists of files, data set cards and each split's first rows.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from taskeff.config import ModelConfig
from taskeff.errors import DataError, ModelError, TaskeffError
from taskeff.tasks.rows import render_row
from taskeff.tasks.source import first_rows, is_on_hub
from taskeff.tasks.spec import TaskSpec

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")
TIMEOUT = 20.0  # seconds for one answer


class _UnreachableError(Exception):
    """Nothing more can be asked; the message says why."""


def hub_problems(model: ModelConfig, specs: Sequence[TaskSpec]) -> dict[str, TaskeffError]:
    """What is wrong on the hub: with the model under the key "", with tasks under their names.

    Raises:
        ModelError: the hub cannot be reached, in one line.
    """
    found: dict[str, TaskeffError] = {}
    try:
        if not os.path.isdir(model.path):
            with _kept(found, ""):
                _check_model(model)
        for spec in specs:
            if is_on_hub(spec):
                with _kept(found, spec.task):
                    _check_data(spec)
    except _UnreachableError as error:
        raise ModelError(
            f"the hub was not reached ({error}), so ids, revisions and columns are not checked; "
            "mend that, set HF_ENDPOINT to a mirror, or leave --online out"
        ) from None
    return found


def _check_model(model: ModelConfig) -> None:
    named = f"model {model.path!r}" + (f" at {model.revision!r}" if model.revision else "")
    try:
        files = _files(model.path, model.revision, "model")
    except DataError as error:
        raise ModelError(f"{named}: {error}") from None
    if "config.json" not in files:
        raise ModelError(f"{named} has no config.json; name a model that transformers loads")
    if not any(name.endswith(".safetensors") for name in files):
        raise ModelError(
            f"{named} has no safetensors, the only weights that are read; name a revision that "
            "has them, or convert it"
        )
    if not any(name in files for name in TOKENIZER_FILES):
        raise ModelError(f"{named} has no tokenizer; name a model that has one")


def _check_data(spec: TaskSpec) -> None:
    """The data set's id and revision, then the templates on the first rows of its splits."""
    where = f"{spec.label}: dataset_path {spec.dataset_path!r}"
    try:
        _files(spec.dataset_path, spec.dataset_kwargs.get("revision"), "dataset")
        for split, rows in first_rows(spec).items():
            if not rows:
                raise DataError(f"split {split!r} has no rows")
            for row in rows:
                render_row(spec, row)
    except TaskeffError as error:
        raise DataError(f"{where}: {error}") from None


def _files(repository: str, revision: str | None, kind: str) -> set[str]:
    """Names of the repository's files.

    Raises:
        DataError: no such repository or revision, or no access to it.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with _in_words():
        info: Any = api.repo_info(repository, revision=revision, repo_type=kind, timeout=TIMEOUT)
        if info.gated:
            api.auth_check(repository, repo_type=kind)
    return {sibling.rfilename for sibling in info.siblings or ()}


@contextmanager
def _in_words() -> Iterator[None]:
    from huggingface_hub import constants, errors
    from huggingface_hub.utils import get_session

    # The client's HTTP package has changed its name before; the session knows which it is.
    http = importlib.import_module(type(get_session()).__module__.partition(".")[0])
    try:
        yield
    except errors.OfflineModeIsEnabled:
        raise _UnreachableError("HF_HUB_OFFLINE is set") from None
    except http.TransportError as error:
        raise _UnreachableError(f"{constants.ENDPOINT}: {error or type(error).__name__}") from None
    except errors.GatedRepoError:
        raise DataError(
            "it is gated; accept its terms on the hub and log in with `hf auth login`"
        ) from None
    except errors.RevisionNotFoundError:
        raise DataError("it has no such revision; check it") from None
    except errors.RepositoryNotFoundError:
        raise DataError(
            "the hub has nothing of that name for you; check the id, or log in with "
            "`hf auth login` if it is private"
        ) from None
    except errors.HFValidationError as error:
        raise DataError(f"{error}; check the id") from None
    except errors.HfHubHTTPError as error:
        raise DataError(f"the hub answers {str(error).splitlines()[0]}; try again later") from None


@contextmanager
def _kept(found: dict[str, TaskeffError], key: str) -> Iterator[None]:
    try:
        yield
    except TaskeffError as error:
        found[key] = error
