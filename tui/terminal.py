"""What the terminal is and can show, found once at start: one frozen value that every view is drawn by."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

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
    notify: Literal["off", "bell", "all"] = "all"
    """FINETUI_NOTIFY: whether a person is called by nothing, by the bell alone, or by a notification too."""
    notice: Literal["", "osc9", "osc777"] = ""
    """The sequence that a notification is written as; empty where none is known to pass without a trace."""
    carrier: Literal["", "tmux", "screen"] = ""
    """What stands between this process and the terminal, and passes on only what is wrapped for it."""
    columns: int = FALLBACK_SIZE[0]
    rows: int = FALLBACK_SIZE[1]

    @classmethod
    def detect(cls, environ: Mapping[str, str] | None = None, ascii: bool = False) -> Terminal:
        """The terminal that `environ` (this process's own by default) and standard output describe."""
        environ = os.environ if environ is None else environ
        utf8 = _says_utf8(environ)
        dumb = environ.get("TERM", "") in ("", "dumb")
        carrier = _carrier(environ)
        columns, rows = _size()
        return cls(
            ssh=bool(environ.get("SSH_CONNECTION") or environ.get("SSH_TTY")),
            tmux=bool(environ.get("TMUX")),
            utf8=utf8,
            no_color=bool(environ.get("NO_COLOR")) or dumb,
            dumb=dumb,
            ascii=ascii or not utf8,
            notify=_wanted(environ),
            notice=_notice(environ, carrier),
            carrier=carrier,
            columns=columns,
            rows=rows,
        )


def _says_utf8(environ: Mapping[str, str]) -> bool:
    # The first of these that is set to something decides, as in POSIX. No locale at all is the rule in
    # containers and over bare SSH, where the terminal is nearly always UTF-8 nevertheless.
    locale = next((environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if environ.get(name)), "C.UTF-8")
    return "utf8" in locale.lower().replace("-", "")


def _wanted(environ: Mapping[str, str]) -> Literal["off", "bell", "all"]:
    wanted = environ.get("FINETUI_NOTIFY", "").strip().lower()
    return "off" if wanted in ("off", "0", "no", "none") else "bell" if wanted == "bell" else "all"


def _carrier(environ: Mapping[str, str]) -> Literal["", "tmux", "screen"]:
    term = environ.get("TERM", "")
    # TERM tells also when tmux runs on this side of an SSH connection and finetui on the other. Where it says screen,
    # tmux may mean itself; it then drops what is wrapped for screen, while screen would print what is wrapped for tmux.
    if environ.get("TMUX") or term.startswith("tmux"):
        return "tmux"
    return "screen" if environ.get("STY") or term.startswith("screen") else ""


# By the beginning of TERM: those that know a title and a body, and those that read OSC 9 or drop what they do not know.
_WITH_TITLE = ("rxvt-unicode", "foot", "konsole", "vte", "contour")
_WITHOUT_TITLE = ("xterm", "alacritty", "wezterm", "ghostty", "kitty", "iterm", "mintty", "st-", "mlterm")
# Older ones print an OSC 777 that they do not know.
_LEAST_VTE = 4600


def _notice(environ: Mapping[str, str], carrier: str) -> Literal["", "osc9", "osc777"]:
    """What is shown by many terminals and printed as text by none.

    Of a multiplexer's TERM nothing follows for the terminal outside; what that terminal set may still be there."""
    term, program = environ.get("TERM", ""), environ.get("TERM_PROGRAM", "")
    if program == "Apple_Terminal":
        return ""  # it shows neither
    if (version := environ.get("VTE_VERSION", "")).isdecimal():
        return "osc777" if int(version) >= _LEAST_VTE else ""
    if term.startswith(_WITH_TITLE) or environ.get("KONSOLE_VERSION"):
        return "osc777"
    return "osc9" if carrier or term.startswith(_WITHOUT_TITLE) else ""


def _size() -> tuple[int, int]:
    for stream in (sys.__stdout__, sys.__stderr__, sys.__stdin__):
        try:
            size = os.get_terminal_size(stream.fileno())  # type: ignore[union-attr]
        except (AttributeError, ValueError, OSError):
            continue  # that stream is closed or no terminal; the next one may be
        if size.columns and size.lines:
            return size.columns, size.lines
    return FALLBACK_SIZE
