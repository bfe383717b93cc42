"""Task files of lm-evaluation-harness: its words -> ours.

What means the same is taken, what bears on no label is left out and said once, and what would be
another task without anybody noticing is refused with the reason.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from taskeff.errors import DataError
from taskeff.tasks.templates import columns_of
from taskeff.yaml_file import Loader, read_yaml

log = logging.getLogger(__name__)

COPIED = (
    *("task", "dataset_path", "dataset_name", "validation_split", "test_split"),
    *("doc_to_keep", "max_new_tokens", "test_size", "validation_size", "ceiling", "metadata"),
)
READ = (
    *("doc_to_text", "doc_to_target", "doc_to_choice", "training_split", "description"),
    "dataset_kwargs",
)
"""Words of both that are translated, and below it words of the harness alone."""
ITS_OWN = (
    *("include", "tag", "task_alias", "output_type", "target_delimiter", "metric_list"),
    "generation_kwargs",
)
IGNORED = (
    *("repeats", "num_fewshot", "fewshot_split", "fewshot_config", "fewshot_delimiter"),
    *("should_decontaminate", "doc_to_decontamination_query", "filter_list", "gen_prefix"),
    *("unsafe_code", "recipe"),
)
REFUSED = {
    "group": "a group is many tasks; name the files of its tasks",
    "class": "a task that is Python code of its own cannot be read; write its rows to a file",
    "use_prompt": "promptsource is not read; write its template as doc_to_text",
    "doc_to_image": "pictures are not read",
    "doc_to_audio": "sounds are not read",
    "custom_dataset": "no data set's code is run; write its rows to a file",
    "process_docs": "rows are read as they are; write what it makes of them to a file",
    "process_results": "scores by Python code are not computed here; name a metric of our own",
}
METRICS = {
    "acc": "accuracy",
    "acc_norm": "accuracy",
    "exact_match": "exact_match",
    "f1": "f1",
    "bleu": "bleu",
}
_EXPRESSION = re.compile(r"\s*\{\{-?((?:(?!\{\{|\}\}).)*?)-?\}\}\s*", re.DOTALL)
_SWALLOWS = re.compile(r"[.\]][*+]")


class _Function(str):
    """What stands behind `!function`."""

    __slots__ = ()


class _Loader(Loader):
    pass


_Loader.add_constructor("!function", lambda _, node: _Function(node.value))


def read(path: Path) -> Any:
    """What the task file at `path` holds, in our words.

    Raises:
        DataError: a word of the harness that is refused, or an include that cannot be read.
        Exception: the file itself cannot be read, or is no YAML.
    """
    values = _load(path)
    if not isinstance(values, dict):
        return values
    words = {*ITS_OWN, *IGNORED, *REFUSED} & values.keys()
    if not words and not any(isinstance(value, _Function) for value in values.values()):
        return values
    try:
        found, notes = translated(_included(values, path, ()))
    except (DataError, ValueError) as error:
        raise DataError(f"{path}, a task of lm-evaluation-harness: {error}") from None
    except (AttributeError, TypeError) as error:
        raise DataError(
            f"{path}, a task of lm-evaluation-harness: a field is not of its kind ({error})"
        ) from None
    if notes:
        _say_once(f"{path}, a task of lm-evaluation-harness: {'; '.join(notes)}")
    return found


def translated(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A harness task in our words, and what to know of it, a sentence each.

    Raises:
        DataError: it means something that we would not measure.
    """
    values = {key: value for key, value in values.items() if value is not None}
    kind = values.get("output_type", "generate_until")
    if kind not in ("multiple_choice", "generate_until"):
        raise DataError(f"output_type {kind}: it scores given text, so there is nothing to label")
    for key, why in REFUSED.items():
        if key in values:
            raise DataError(f"{key}: {why}")
    for key in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        if isinstance(values.get(key), _Function):
            raise DataError(
                f"{key} is !function {values[key]}: no task's code is run; write it as a template"
            )
    found = {key: values[key] for key in COPIED if key in values}
    notes = [*_metric(values, kind, found), *_splits(values, found)]
    found["doc_to_text"] = text = _template(values.get("doc_to_text", ""))
    found |= _answer(values, text, kind)
    if "description" in values:
        found["description"] = str(values["description"]).strip()
        if "{{" in found["description"]:
            raise DataError("description: it is the same for every row here; write no template")
    if "dataset_kwargs" in values:
        kwargs = dict(values["dataset_kwargs"])
        if kwargs.pop("trust_remote_code", False):
            notes.append("no data set's code is run (trust_remote_code)")
        found["dataset_kwargs"] = kwargs
    tokens = values.get("generation_kwargs", {}).get("max_gen_toks")
    if tokens is not None:
        found["max_new_tokens"] = tokens
    if any(mark not in ("\n", "\n\n") for mark in _until(values)):
        notes.append("an answer ends with its turn, not at generation_kwargs.until")
    ignored = [k for k in IGNORED if values.get(k) and (k, values[k]) != ("repeats", 1)]
    if ignored:
        notes.append(f"left out, as no label hangs on it: {', '.join(ignored)}")
    known = {*COPIED, *READ, *ITS_OWN, *IGNORED}
    unknown = {key: value for key, value in values.items() if key not in known}
    return {**unknown, **found}, notes


def _metric(values: Mapping[str, Any], kind: str, found: dict[str, Any]) -> Iterator[str]:
    """Puts the first metric that is known here into `found`; says what the others were."""
    default = "acc" if kind == "multiple_choice" else "exact_match"
    listed = values.get("metric_list") or [{"metric": default}]
    names = [str(one.get("metric")) for one in listed]
    known = [i for i, name in enumerate(names) if name in METRICS]
    if not known:
        raise DataError(
            f"metric_list: none of {', '.join(names)} is computed here; name one of "
            f"{', '.join(METRICS)}"
        )
    first = listed[known[0]]
    name = names[known[0]]
    found["metric"] = METRICS[name]
    if name == "f1" and "doc_to_choice" not in values:
        found["metric"] = "token_f1"
        yield "f1 is that of shared words, as SQuAD's"
    elif name == "f1":
        yield "f1 is the mean over the labels"
    cuts = [str(regex) for regex in first.get("regexes_to_ignore", ())]
    for regex in cuts:
        if _SWALLOWS.search(regex):
            raise DataError(
                f"metric_list: {name} compares what is left after {regex!r} is cut away, and here "
                "the whole first line; make doc_to_target the short answer alone, as "
                "{{answer.split('#### ')[-1]}}"
            )
    if name != "acc_norm" and (cuts or first.get("ignore_punctuation")):
        yield f"{name} ignores case and one full stop, no other mark"
    others = [n for n in names if METRICS.get(n) != METRICS[name]]
    if others:
        yield f"scored by {name}, not by {', '.join(others)}"


def _splits(values: Mapping[str, Any], found: dict[str, Any]) -> Iterator[str]:
    """Scores are taken on the split that the harness takes, rows to train on from another."""
    if "test_split" not in found and "validation_split" in found:
        found["test_split"] = found.pop("validation_split")
    if "training_split" in values:
        found["training_split"] = values["training_split"]
    elif "test_split" in found:
        found["training_split"] = whole = found.pop("test_split")
        found.pop("validation_split", None)
        yield f"without a training split, {whole!r} is split into training and test rows"


def _template(value: Any) -> str:
    """A template; a bare column is one that prints it."""
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"doc_to_text is {value!r}, which asks nothing; write a template")
    if "{{" in value or "{%" in value:
        return value
    return "{{" + _column(value) + "}}"


def _column(name: str) -> str:
    return name if name.isidentifier() else f"doc[{json.dumps(name)}]"


def _answer(values: Mapping[str, Any], text: str, kind: str) -> dict[str, Any]:
    """`doc_to_target`, and `doc_to_choice` where every row has the same answers."""
    target, choices = values.get("doc_to_target"), values.get("doc_to_choice")
    if isinstance(target, list):
        raise DataError("doc_to_target lists several right answers; name one")
    if isinstance(choices, Mapping):
        choices = list(choices.values())
    if choices is None:
        return {} if target is None else {"doc_to_target": _template(target)}
    if not isinstance(choices, list):
        return {"doc_to_target": _shown_answer(str(choices), target, text, kind)}
    # Truth values stay, for the check that says what YAML makes of an unquoted yes.
    words = [c if isinstance(c, bool) else str(c).strip() for c in choices]
    found: dict[str, Any] = {"doc_to_choice": words}
    if isinstance(target, str) and "{" in target:
        answers = _numbered(words, '"')
        found["doc_to_target"] = (
            f"{{% set given %}}{target}{{% endset %}}{{{{ {answers}.get(given | trim, given) }}}}"
        )
    elif target is not None:
        column = _column(target) if isinstance(target, str) else str(target)
        found["doc_to_target"] = f"{{{{ {_numbered(words)}.get({column}, {column}) }}}}"
    return found


def _numbered(words: list[Any], quote: str = "") -> str:
    """The answers by their index, as a template writes it."""
    pairs = (f"{quote}{i}{quote}: {json.dumps(w, ensure_ascii=False)}" for i, w in enumerate(words))
    return f"{{{', '.join(pairs)}}}"


def _shown_answer(choices: str, target: Any, text: str, kind: str) -> str:
    """The template of the right one of the answers that the row itself lists."""
    whole = _EXPRESSION.fullmatch(choices)
    if whole is None and "{" in choices:
        raise DataError(f"doc_to_choice {choices!r}: write it as one expression in {{{{ }}}}")
    answers = whole[1].strip() if whole else _column(choices)
    if not columns_of(f"{{{{{answers}}}}}") <= columns_of(text):
        raise DataError(
            f"{kind}: every row has answers of its own that doc_to_text does not show; the harness "
            "compares their likelihoods, here a model writes an answer and cannot know them; show "
            f"{answers} in doc_to_text"
        )
    if isinstance(target, int):
        return f"{{{{ ({answers})[{target}] }}}}"
    if target is not None and "{" not in target:
        column = _column(target)
        number = f"{column} is integer and {column} >= 0"
        return f"{{{{ ({answers})[{column}] if {number} else {column} }}}}"
    return (
        f"{{% set given %}}{target}{{% endset %}}"
        f"{{{{ ({answers})[given | int] if (given | trim).isdigit() else given }}}}"
    )


def _until(values: Mapping[str, Any]) -> list[str]:
    until = values.get("generation_kwargs", {}).get("until", [])
    return [until] if isinstance(until, str) else list(until)


def _load(path: Path) -> Any:
    return read_yaml(path, _Loader)


def _included(values: dict[str, Any], path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """The values over those of the files they include, as the harness merges them."""
    if path in above:
        raise DataError(f"include: {path} includes itself")
    names = values.get("include") or []
    found: dict[str, Any] = {}
    for name in [names] if isinstance(names, str) else names:
        file = path.parent / str(name)
        try:
            loaded = _load(file)
        except Exception as error:  # noqa: BLE001 - YAML's constructors raise what they like
            raise DataError(f"include: {file} cannot be read: {error}") from None
        if not isinstance(loaded, dict):
            raise DataError(f"include: {file} holds no fields")
        found |= _included(loaded, file, (*above, path))
    return {**found, **values}


@cache
def _say_once(message: str) -> None:
    log.warning(message)


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def as_yaml(values: Mapping[str, Any]) -> str:
    """A task's fields as a task file, text of several lines as it reads."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
