"""Matplotlib's SVG, made fit to stand inside a page.

Styles become classes of one sheet (so the page's Content-Security-Policy can forbid every other
style), colours become the page's variables (so one drawing serves light and dark), and what varies
between machines or is of no use to a reader (metadata, unused ids, far digits) goes.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from markupsafe import Markup, escape

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_NUMBER = re.compile(r"-?\d+\.\d+")
_REFERENCE = re.compile(r"#([\w.-]+)")
_FONT = re.compile(r"\s*font-family:[^;]*;?")


class Sheet:
    """Collects the drawings' styles; equal styles share one class."""

    def __init__(self, colours: dict[str, str]) -> None:
        """`colours` maps the hexadecimal colours of the drawings to CSS variables."""
        self._colours = colours
        self._classes: dict[str, str] = {}

    def class_of(self, style: str) -> str:
        """The class that stands for a style attribute."""
        style = _FONT.sub("", style).strip().rstrip(";")
        for colour, variable in self._colours.items():
            style = style.replace(colour, f"var({variable})")
        return self._classes.setdefault(style, f"f{len(self._classes)}")

    def css(self) -> str:
        """The rules, in the order in which they were first met."""
        return "\n".join(f".{name}{{{style}}}" for style, name in self._classes.items())


def inline(drawing: str, key: str, label: str, sheet: Sheet) -> Markup:
    """An `<svg>` to put in a page; `key` keeps its ids apart, `label` is its alternative text."""
    root = ET.fromstring(drawing)
    _drop(root, f"{_SVG}metadata")
    for defs in root.iter(f"{_SVG}defs"):
        _drop(defs, f"{_SVG}style")
    used = {
        name
        for element in root.iter()
        for value in (element.get(_HREF), element.get("clip-path"))
        for name in _REFERENCE.findall(value or "")
    }
    for element in root.iter():
        _clean(element, key, used, sheet)
    body = "".join(ET.tostring(child, encoding="unicode") for child in root)
    body = re.sub(r">\s+<", "><", body).strip()
    return Markup(
        f'<svg class="plot" role="img" aria-label="{escape(label)}" '
        f'viewBox="{root.attrib["viewBox"]}">{body}</svg>'
    )


def _drop(parent: ET.Element, tag: str) -> None:
    for child in parent.findall(tag):
        parent.remove(child)


def _clean(element: ET.Element, key: str, used: set[str], sheet: Sheet) -> None:
    # Inside HTML the svg namespace is implied.
    element.tag = element.tag.removeprefix(_SVG)
    attributes = element.attrib
    name = attributes.pop("id", None)
    if name in used:
        attributes["id"] = f"{key}-{name}"
    if target := attributes.pop(_HREF, None):
        attributes["href"] = f"#{key}-{target[1:]}"
    if "clip-path" in attributes:
        attributes["clip-path"] = attributes["clip-path"].replace("#", f"#{key}-")
    if style := attributes.pop("style", None):
        attributes["class"] = sheet.class_of(style)
    for field in ("d", "x", "y", "transform", "width", "height"):
        if field in attributes:
            attributes[field] = _shorten(attributes[field])


def _shorten(numbers: str) -> str:
    short = _NUMBER.sub(lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), numbers)
    return " ".join(short.split())
