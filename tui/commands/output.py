"""Where commands write: text and JSON on standard output, problems and warnings on standard error."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from profiles.problem import Problem, printable
from tui.terminal import Terminal

# Our own glyphs as ASCII; what a model or a person wrote is not touched.
_ASCII = str.maketrans(
    {
        "…": "...",
        "·": "-",
        "●": "*",
        "◌": "o",
        "○": "o",
        "◐": "~",
        "✓": "+",
        "■": "#",
        "▣": "=",
        "◧": "%",
        "□": "_",
        "✗": "x",
        "▲": "!",
        "→": "->",
        "×": "x",
        "±": "+-",
        "°": "",
        "▐": "[",
        "▌": "]",
        "█": "#",
        "░": ".",
    }
)
_LONGEST_LINE = 4096


class Output:
    """What a command prints on. Lines are flushed as they come, so that a pipe sees them live."""

    def __init__(self, terminal: Terminal, stdout: TextIO, stderr: TextIO):
        self.terminal = terminal
        self._stdout, self._stderr = stdout, stderr
        self.live = stdout.isatty() and not terminal.dumb
        """Standard output is a terminal, so a line may be drawn over."""
        self._status_shown = False

    @classmethod
    def standard(cls, terminal: Terminal) -> Output:
        """The process's own streams, which never fail on a character that their encoding lacks."""
        return cls(terminal, _lenient(sys.stdout), _lenient(sys.stderr))

    def line(self, text: str = "") -> None:
        """One line, control characters escaped; glyphs as ASCII where the terminal wants that."""
        self.clear_status()
        self._stdout.write(self.drawable(printable(text, _LONGEST_LINE)) + "\n")
        self._stdout.flush()

    def lines(self, texts: Sequence[str]) -> None:
        for text in texts:
            self.line(text)

    def text(self, text: str) -> None:
        """What a model wrote: line breaks stay, other control characters are escaped, glyphs stay."""
        self.clear_status()
        # Split at line feeds only: a chunk may end in the middle of a line.
        self._stdout.write("\n".join(printable(part, sys.maxsize) for part in text.split("\n")))
        self._stdout.flush()

    def status(self, text: str) -> None:
        """The one line that is drawn over by whatever comes next. Only for a live output."""
        width = max(1, self.terminal.columns - 1)
        self._stdout.write("\r\x1b[K" + self.drawable(printable(text, width)))
        self._stdout.flush()
        self._status_shown = True

    def json(self, value: Any, indent: int | None = 2) -> None:
        """`value` as JSON in ASCII, which any pipe and locale can carry; one line when `indent` is None."""
        self._stdout.write(json.dumps(value, indent=indent, default=str, allow_nan=False) + "\n")
        self._stdout.flush()

    def warn(self, text: str) -> None:
        """A line on standard error."""
        self.clear_status()
        self._stderr.write(self.drawable(printable(text, _LONGEST_LINE)) + "\n")
        self._stderr.flush()

    def to_terminal(self, text: str) -> None:
        """Control characters for the person's terminal, where standard error is one that understands any."""
        if self._stderr.isatty() and not self.terminal.dumb:
            self._stderr.write(text)
            self._stderr.flush()

    def problem(self, problem: Problem) -> None:
        """`where: what` and the fix, on standard error."""
        for text in str(problem).splitlines():
            self.warn(text)

    def drawable(self, text: str) -> str:
        return text.translate(_ASCII) if self.terminal.ascii else text

    def clear_status(self) -> None:
        if self._status_shown:
            self._stdout.write("\r\x1b[K")
            self._status_shown = False


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> list[str]:
    """`rows` under `header` as aligned lines; the columns named in `right` are aligned right."""
    cells = [[printable(cell) for cell in row] for row in (header, *rows)]
    widths = [max(_cell_width(row[index]) for row in cells) for index in range(len(header))]

    def aligned(text: str, index: int) -> str:
        padding = " " * (widths[index] - _cell_width(text))
        return padding + text if header[index] in right else text + padding

    return ["  ".join(aligned(text, index) for index, text in enumerate(row)).rstrip() for row in cells]


def _lenient(stream: TextIO | None) -> TextIO:
    if stream is None:  # it was closed by whoever started us
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123
    assert isinstance(stream, io.TextIOWrapper)
    stream.reconfigure(errors="backslashreplace")
    return stream


def _cell_width(text: str) -> int:
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # only where a name has wide characters, since it takes a while to import

    return cell_len(text)
