"""Jinja2 for strangers' templates: nothing of the machine is in reach, and work is counted.

A rendering has `BUDGET` units: a node of the template that runs costs `NODE`, a character that is
made 1, an element of a list `ELEMENT`. What could make much of little (a width, a repetition, a
separator) is paid for before it is made. Counting needs no clock, signal or process of its own: it
holds in every thread and actor, and the same template and row end alike on any machine.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
import string
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

BUDGET, NODE, ELEMENT = 30_000_000, 50, 40
BITS = 1 << 16  # of a whole number
LONGEST = 100_000  # characters of a template
METHODS = frozenset(
    """capitalize casefold center count endswith find format get index is_integer isalnum isalpha
    isascii isdecimal isdigit islower isnumeric isprintable isspace istitle isupper items join keys
    ljust lower lstrip partition removeprefix removesuffix replace rfind rindex rjust rpartition
    rsplit rstrip split splitlines startswith strip swapcase title upper values zfill""".split()  # noqa: SIM905 - shorter
)
"""Of text, numbers, lists and dictionaries: what takes time and room in proportion to them."""
# The same row has to give the same text every time; the rest takes the square of a text's length.
_DROPPED = ("random", "urlize", "wordwrap", "xmlattr")
_PERCENT = re.compile(r"%(?:\([^)]*\))?[^%a-zA-Z]*?(?:\*|\d{4,})")
_WIDE = re.compile(r"\{|\d{4,}")
_OURS = ("_loop_vars", "_block_vars")  # what compiled templates hand to every call
_CHARGED, _TICK = " charged", " tick"  # filters that no template can name

Cost = Callable[..., float]


class _Left(threading.local):
    units: float = 0


_left = _Left()


def render(template: jinja2.Template, values: Mapping[str, Any]) -> str:
    """The text of one rendering of a template of a `BoundedEnvironment`.

    Raises:
        SecurityError: it reaches for what it may not have, or takes more than `BUDGET`.
        Exception: whatever else Python raises in it.
    """
    _left.units = BUDGET
    return template.render(values)


def _spend(units: float) -> None:
    _left.units = left = _left.units - units
    if left < 0:
        raise SecurityError("takes more work than one rendering may; look at loops and widths")


def _size(value: Any) -> int:
    """Characters and elements of a value, all the way down, in units; what is left at most."""
    if isinstance(value, str):
        return len(value)
    if value is None or isinstance(value, int | float):
        return ELEMENT
    total, held = 0, [value]
    while held and total <= _left.units:
        one = held.pop()
        total += ELEMENT
        if isinstance(one, str | bytes):
            total += len(one)
        elif isinstance(one, Collection) and not isinstance(one, jinja2.Undefined):
            total += ELEMENT * len(one)
            if total <= _left.units and not isinstance(one, range):
                held.extend(one)
                held.extend(one.values() if isinstance(one, Mapping) else ())
    return total


def _sizes(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    total = 0
    for one in args:
        total += _size(one)
    for one in kwargs.values():
        total += _size(one)
    return total


def _charged(value: Any) -> Any:
    _spend(_size(value))
    return value


def _tick(units: int) -> bool:
    _spend(units)
    return True


def _width(_: Any, width: int = 80, *_rest: Any) -> float:
    return width


def _product(text: Any, chars: Any = None, *_: Any) -> float:
    return len(text) * len(chars or "") / 16


def _replace(text: Any, old: Any, new: Any, *_: Any) -> float:
    return str(text).count(str(old)) * len(str(new))


def _join_method(separator: str, parts: Any) -> float:
    return len(separator) * len(parts) if isinstance(parts, Collection) else math.inf


def _join_filter(parts: Any, d: Any = "", *_: Any) -> float:
    # A generator's elements are not known yet, and were paid for or are parts of what was.
    return len(str(d)) * (len(parts) if isinstance(parts, Collection) else BUDGET / 1000)


def _indent(text: Any, width: Any = 4, *_: Any, **__: Any) -> float:
    return (str(text).count("\n") + 1) * (width if isinstance(width, int) else len(width))


def _sum(_: Any, attribute: Any = None, start: Any = 0) -> float:
    return 0 if isinstance(start, int | float) else math.inf


def _percent(text: Any, *args: Any, **kwargs: Any) -> float:
    if _PERCENT.search(str(text)):
        return math.inf
    return str(text).count("%") * _size([*args, kwargs])


def _braces(text: str, *args: Any, **kwargs: Any) -> float:
    fields = [spec or "" for _, name, spec, _ in string.Formatter().parse(text) if name is not None]
    return math.inf if any(map(_WIDE.search, fields)) else len(fields) * _size([*args, kwargs])


def _json(value: Any, *args: Any, indent: Any = None, separators: Any = (), **_: Any) -> float:
    widths = [one if isinstance(one, int) else len(one) for one in (*args, indent) if one]
    return _size(value) * (1 + sum(widths) + sum(map(len, separators or ())))


_METHOD_COSTS: dict[str, Cost] = {
    **dict.fromkeys(("center", "ljust", "rjust", "zfill"), _width),
    **dict.fromkeys(("strip", "lstrip", "rstrip", "rfind", "rindex", "rsplit"), _product),
    "rpartition": _product,
    "replace": _replace,
    "join": _join_method,
    "format": _braces,
}
_FILTER_COSTS: dict[str, Cost] = {
    "center": _width,
    "trim": lambda text, chars=None: _product(str(text), chars),
    "replace": lambda text, old, new, count=None: _replace(text, old, new),
    "join": _join_filter,
    "indent": _indent,
    "format": _percent,
    "sum": _sum,
    "tojson": _json,
    "batch": lambda value, linecount, fill_with=None: linecount * ELEMENT,
    "slice": lambda value, slices, fill_with=None: slices * ELEMENT,
    "round": lambda value, precision=0, method="common": abs(precision) ** 3,
    "striptags": lambda value: str(value).count("<") * len(str(value)) / 16,
}


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or test that pays for what it is given, what it takes and what it makes."""
    skip = 1 if hasattr(function, "jinja_pass_arg") else 0
    cost = _FILTER_COSTS.get(name)

    @functools.wraps(function)
    def paid(*args: Any, **kwargs: Any) -> Any:
        given = args[skip:] if skip else args
        _spend(NODE + _sizes(given, kwargs))
        if cost is not None:
            _spend(cost(*given, **kwargs))
        return _charged(function(*args, **kwargs))

    return paid


class _Counted(NodeTransformer):
    """Lets every body that may run often, and every value made without a call, pay."""

    def _body(self, node: Any) -> Any:
        inside = list(node.find_all(nodes.Node))
        data = sum(len(n.data) for n in inside if isinstance(n, nodes.TemplateData))
        tick = _filter(nodes.Const(NODE * (1 + len(inside)) + data), _TICK, node)
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(tick, lineno=node.lineno))
        if isinstance(node, nodes.For) and node.test is not None:
            node.test = nodes.And(tick, node.test, lineno=node.lineno)
        return node

    visit_For = visit_Macro = visit_CallBlock = visit_Block = _body  # noqa: N815 - jinja2's

    def _made(self, node: Any) -> Any:
        self.generic_visit(node)
        stored = getattr(node, "ctx", "load") != "load"
        whole = isinstance(node, nodes.Getitem) and not isinstance(node.arg, nodes.Slice)
        return node if stored or whole else _filter(node, _CHARGED, node)

    visit_List = visit_Tuple = visit_Dict = visit_Getitem = _made  # noqa: N815

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [_paid(one) for one in node.nodes]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _paid(node.expr)
        for operand in node.ops:
            operand.expr = _paid(operand.expr)
        return node


def _filter(node: Any, name: str, at: nodes.Node) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=at.lineno)


def _paid(node: nodes.Expr) -> nodes.Expr:
    return node if isinstance(node, nodes.Const) else _filter(node, _CHARGED, node)


class _Generator(CodeGenerator):
    def visit_Template(self, node: nodes.Template, frame: Any = None) -> None:  # noqa: N802
        super().visit_Template(_Counted().visit(node), frame)


class _Namespace(Namespace):
    def __repr__(self) -> str:  # of namespaces in namespaces takes all time there is
        return "<Namespace>"


@jinja2.pass_context  # what needs a context is not worked out, unpaid, while compiling
def _output(context: Any, value: Any) -> Any:
    return _charged(context.environment.printable(value))


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """An immutable sandbox in which every rendering is bounded; templates run through `render`."""

    code_generator_class = _Generator
    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self, filters: Mapping[str, Callable[..., Any]] | None = None, **options: Any):
        super().__init__(finalize=_output, optimized=False, **options)
        self.filters |= filters or {}
        for name in _DROPPED:
            del self.filters[name]
        del self.globals["lipsum"]
        self.globals["namespace"] = _Namespace
        self.filters = {name: _bounded(name, one) for name, one in self.filters.items()}
        self.tests = {name: _bounded("", one) for name, one in self.tests.items()}
        self.filters |= {_CHARGED: _charged, _TICK: _tick}

    def printable(self, value: Any) -> Any:
        """What is printed of a value."""
        return value

    def parse(self, source: str, *args: Any, **kwargs: Any) -> nodes.Template:
        """The template's nodes."""
        _check_length(source)
        return super().parse(source, *args, **kwargs)

    def from_string(self, source: Any, *args: Any, **kwargs: Any) -> jinja2.Template:
        """The template, compiled."""
        _check_length(source)
        return super().from_string(source, *args, **kwargs)

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls, if it is bounded, for its price."""
        named = kwargs and {key: value for key, value in kwargs.items() if key not in _OURS}
        _spend(NODE + _sizes(args, named))
        method = inspect.unwrap(obj)
        of = getattr(method, "__self__", None)
        if isinstance(of, str | bytes | int | float | Sequence | Mapping):
            name = method.__name__
            if name not in METHODS:
                raise SecurityError(f"the method {name!r} is none that templates may use")
            if cost := _METHOD_COSTS.get(name):
                _spend(cost(of, *args, **named))
        return _charged(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Work out an operator, for the price of its result."""
        if isinstance(left, int) and isinstance(right, int):
            most = left.bit_length() * right if operator == "**" else 0
            if max(most, left.bit_length() + right.bit_length()) > BITS:
                raise SecurityError("a number grows too large")
        elif operator == "*":
            for one, times in ((left, right), (right, left)):
                if isinstance(one, Sequence) and isinstance(times, int):
                    _spend(_size(one) * max(0, times))
        elif operator == "+":
            _spend(_size(left) + _size(right))
        elif operator == "%" and isinstance(left, str):
            _spend(_percent(left, right))
        return super().call_binop(context, operator, left, right)


def _check_length(source: str) -> None:
    if len(source) > LONGEST:
        raise jinja2.TemplateSyntaxError(f"longer than {LONGEST:,} characters", 1)
