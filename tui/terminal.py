"""What the terminal is and can show, found once at start: one frozen value that every view is drawn by."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

FALLBACK_SIZE = (80, 24)


@dataclass(frozen=True, slots=True)
class Terminal:
    """The terminal of this process, with its size in cells at start; the app follows later changes."""

    ssh: bool = False
    """Reached over SSH, so that bytes written are bytes sent."""
    tmux: bool = False
    """Inside tmux, whose clipboard wants `tmux load-buffer -w -`."""
    utf8: bool = True
    """The locale says that text is UTF-8."""
    no_color: bool = False
    """NO_COLOR is set to anything but nothing, or the terminal has no colours."""
    dumb: bool = False
    """TERM is dumb or not set: the cursor cannot be moved."""
    ascii: bool = False
    """Draw with ASCII characters only: asked for with --ascii, or the locale is not UTF-8."""
    columns: int = FALLBACK_SIZE[0]
    rows: int = FALLBACK_SIZE[1]

    @classmethod
    def detect(cls, environ: Mapping[str, str] | None = None, ascii: bool = False) -> Terminal:
        """The terminal that `environ` (this process's own by default) and standard output describe."""
        environ = os.environ if environ is None else environ
        utf8 = _says_utf8(environ)
        dumb = environ.get("TERM", "") in ("", "dumb")
        columns, rows = _size()
        return cls(
            ssh=bool(environ.get("SSH_CONNECTION") or environ.get("SSH_TTY")),
            tmux=bool(environ.get("TMUX")),
            utf8=utf8,
            no_color=bool(environ.get("NO_COLOR")) or dumb,
            dumb=dumb,
            ascii=ascii or not utf8,
            columns=columns,
            rows=rows,
        )


def _says_utf8(environ: Mapping[str, str]) -> bool:
    # The first of these that is set to something decides, as in POSIX. No locale at all is the rule in
    # containers and over bare SSH, where the terminal is nearly always UTF-8 nevertheless.
    locale = next((environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if environ.get(name)), "C.UTF-8")
    return "utf8" in locale.lower().replace("-", "")


def _size() -> tuple[int, int]:
    for stream in (sys.__stdout__, sys.__stderr__, sys.__stdin__):
        try:
            size = os.get_terminal_size(stream.fileno())  # type: ignore[union-attr]
        except (AttributeError, ValueError, OSError):
            continue  # that stream is closed or no terminal; the next one may be
        if size.columns and size.lines:
            return size.columns, size.lines
    return FALLBACK_SIZE
