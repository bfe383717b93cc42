"""What reaches a terminal: control characters of data, names and errors are shown, not sent."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# Whatever steers a terminal, half characters, and marks that turn text around or hide it.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """`text` with what would steer a terminal written out: `\\x1b`, `\\u202e`."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class Screen(Console):
    """A console whose own styles and bars steer the terminal, and nothing else does."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """As rich renders it, control characters of its texts written out."""
        for segment in super().render(renderable, options):
            is_ours = bool(segment.control)
            yield segment if is_ours else Segment(printable(segment.text), segment.style)


class _Shown:
    """A stream that writes control characters out; a `Screen` goes past it."""

    def __init__(self, stream: TextIO):
        self.rich_proxied_file = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)

    def write(self, text: str) -> int:
        """Write `text`; a bar of a library begins with a carriage return, which it may."""
        lead = "\r" if text.startswith("\r") else ""
        return self.rich_proxied_file.write(lead + printable(text[len(lead) :]))

    def writelines(self, lines: Iterable[str]) -> None:
        """Write the lines, each as `write` does."""
        for line in lines:
            self.write(line)


@contextlib.contextmanager
def shown_streams() -> Iterator[None]:
    """Standard output and error write control characters out in the block."""
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that is not UTF-8 shows what it can.
            stream.reconfigure(errors="replace")
    sys.stdout, sys.stderr = _Shown(sys.stdout), _Shown(sys.stderr)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
