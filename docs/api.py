"""The page of the public names, made of their docstrings: python docs/api.py writes docs/api.md."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import taskeff

PAGE = Path(__file__).with_suffix(".md")
ROOMS = (
    ("Ask", ("predict", "Estimate", "Pilot", "Score", "Prices", "target_share", "Calibration")),
    ("Measure", ("select", "score", "pilot_config", "pilot", "rank", "calibrate")),
    ("Where it is measured", ("InProcess", "InlineExecutor", "OnRay", "RayExecutor")),
    ("Settings", ("load_config", "RunConfig", "RankConfig", "ModelConfig", "CosLowConfig")),
    ("What goes wrong", ("TaskeffError",)),
)
FOUND = (taskeff.Estimate, taskeff.Calibration)
"""Classes that nobody makes by hand."""
HEAD = """# From Python

Made of the docstrings by `python docs/api.py`; `help(taskeff.predict)` says the same, and a test
runs every example. Names are loaded on first use: `import taskeff` brings in neither torch nor ray.
"""
SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Examples):$")
ITEM = re.compile(r"^([\w, ]+): (.*)$")


def page() -> str:
    """The text of docs/api.md."""
    parts = [HEAD]
    for title, names in ROOMS:
        parts.append(f"## {title}\n")
        parts += [_entry(name, getattr(taskeff, name)) for name in names]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


def _entry(name: str, shown: Any) -> str:
    call = f"```python\n{_call(name, shown)}\n```\n\n" if _call(name, shown) else ""
    methods = "".join(_methods(shown)) if inspect.isclass(shown) else ""
    return f"### `{name}`\n\n{call}{_text(shown)}{methods}"


def _call(name: str, shown: Any) -> str:
    """How it is called; a schema's fields are those of the file that it reads."""
    if inspect.isclass(shown) and issubclass(shown, BaseModel):
        fields = shown.model_fields.items()
        words = [key if field.is_required() else f"{key}=..." for key, field in fields]
        return _wrapped(f"{name}(", words, ")")
    if shown in FOUND or (inspect.isclass(shown) and not dataclasses.is_dataclass(shown)):
        return ""
    signature = inspect.signature(shown)
    back = signature.return_annotation
    returns = "" if back in (inspect.Parameter.empty, "None", None) else f" -> {back}"
    words, starred = [], False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            words, starred = [*words, "*"], True
        word, default = parameter.name, parameter.default
        if parameter.annotation is not parameter.empty:
            word += f": {parameter.annotation}"
        if default is not parameter.empty:
            word += f" = {getattr(default, '__name__', repr(default))}"
        words.append(word)
    return _wrapped(f"{name}(", words, f"){returns}")


def _wrapped(head: str, words: list[str], tail: str) -> str:
    line = head + ", ".join(words) + tail
    if len(line) <= 100:
        return line
    return head + "\n" + "".join(f"    {word},\n" for word in words) + tail


def _methods(shown: type) -> Iterator[str]:
    """A line for each public method of our own that is documented."""
    own = [base for base in shown.__mro__ if base.__module__.startswith("taskeff.")]
    if issubclass(shown, BaseModel) or not dataclasses.is_dataclass(shown):
        return
    found = {key: value for base in reversed(own) for key, value in vars(base).items()}
    for key, value in sorted(found.items()):
        method = value.__func__ if isinstance(value, staticmethod) else value
        if key.startswith("_") or not inspect.isfunction(method):
            continue
        first = (inspect.getdoc(method) or "").split("\n\n")[0].replace("\n", " ")
        named = [name for name in inspect.signature(method).parameters if name != "self"]
        yield f"- `.{key}({', '.join(named)})`: {_code(first)}\n"


def _text(shown: Any) -> str:
    """The docstring as Markdown: sections become lists, examples a block."""
    lines = (inspect.getdoc(shown) or "").splitlines()
    out: list[str] = []
    section = ""
    for line in lines:
        if match := SECTION.match(line):
            section = match[1]
            out += ["```python"] if section == "Examples" else [f"**{section}**", ""]
        elif section == "Examples":
            out.append(line.removeprefix("    "))
        elif section:
            out.append(_item(line.removeprefix("    "), section))
        else:
            out.append(_code(line))
    if section == "Examples":
        out.append("```")
    return "\n".join(line.rstrip() for line in out) + "\n\n"


def _item(line: str, section: str) -> str:
    match = ITEM.match(line)
    if section == "Returns" or not match:
        return f"  {_code(line.strip())}" if line.startswith(" ") else _code(line)
    return f"- `{match[1]}`: {_code(match[2])}"


def _code(text: str) -> str:
    return text.replace("``", "`")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"written to {PAGE}")
