"""Calling a person who looks elsewhere: the terminal's bell, and a notification where the terminal can show one.

The bell always goes first and alone: it reaches a person also where a notification is dropped, and tmux and screen pass
it on by themselves. What they do not know they drop, so a notification is wrapped for them (tmux passes it on where
its option allow-passthrough is on).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from profiles.problem import printable
from tui.format import counted, loss_text
from tui.run_words import held_word, why_words
from tui.seal_words import WORDS
from tui.terminal import Terminal

if TYPE_CHECKING:
    from engine.run.summary import RunSummary

LONGEST_TITLE, LONGEST_TEXT = 50, 120
"""Characters. At four bytes each they are within the 768 bytes of a sequence that screen passes on whole."""

_LIVE = ("running", "preparing", "queued")


class Attention:
    """Writes calls for `terminal` with `write`, each in one piece."""

    def __init__(self, terminal: Terminal, write: Callable[[str], object]):
        self._terminal, self._write = terminal, write

    def call(self, title: str, text: str) -> None:
        """Ring, and show `title` and `text` where that is possible and wanted."""
        if self._terminal.notify != "off":
            self._write("\a" + self._notification(title, text))

    def _notification(self, title: str, text: str) -> str:
        terminal = self._terminal
        if terminal.notify == "bell" or not terminal.notice:
            return ""
        title, text = _plain(title, LONGEST_TITLE, terminal), _plain(text, LONGEST_TEXT, terminal)
        if terminal.notice == "osc777":
            sequence = f"\x1b]777;notify;{title};{text}\a"
        else:
            # Always with the program's name first: a text that begins with a number is taken for another request
            # by ConEmu and Windows Terminal (4 sets their progress bar).
            sequence = f"\x1b]9;finetui: {': '.join(part for part in (title, text) if part)}\a"
        if terminal.carrier == "tmux":
            return "\x1bPtmux;" + sequence.replace("\x1b", "\x1b\x1b") + "\x1b\\"
        return f"\x1bP{sequence}\x1b\\" if terminal.carrier == "screen" else sequence


@dataclass(frozen=True, slots=True)
class News:
    """What a person is called for: a headline that names the run, and what there is to say of it."""

    path: Path
    title: str
    text: str
    urgent: bool = False
    """Whether it is said even where the run is in view."""


class NewsDesk:
    """Tells what is news in one reading of the runs after another, each thing once."""

    def __init__(self) -> None:
        self._began_at = time.time()
        self._known: dict[Path, RunSummary] | None = None

    def read(self, runs: Iterable[RunSummary]) -> list[News]:
        """What became of `runs` since the last reading. The first reading is no news, nor is a run that comes to be
        seen later but began before the desk did."""
        before, now = self._known, {run.path: run for run in runs}
        self._known = {**(before or {}), **now}
        if before is None:
            return []
        fresh = [run for run in now.values() if run.path in before or (run.started_at or 0.0) >= self._began_at]
        return [told for run in fresh for told in news(before.get(run.path), run)]


def news(before: RunSummary | None, now: RunSummary) -> list[News]:
    """What a person should hear of a run: that it finished, failed, stalls or paused, that its seal was opened or a way
    out tried; nothing where nothing of that came about since `before` (None for a run that was not there). Whoever
    stopped a run knows it."""
    told = [_seal_news(before, now), _way_out_news(before, now), _course_news(before, now)]
    return [each for each in told if each is not None]


def _seal_news(before: RunSummary | None, now: RunSummary) -> News | None:
    if not now.seal_broken or (before is not None and before.seal_broken) or now.cause == "unsealed":
        return None
    return News(now.path, f"{now.spec_name}: {WORDS[now.seal]}", now.seal_broken, urgent=True)


def _way_out_news(before: RunSummary | None, now: RunSummary) -> News | None:
    """Of each place once, however often it tries."""
    if now.ways_out <= (before.ways_out if before is not None else 0):
        return None
    return News(now.path, f"{now.spec_name}: a way out was tried", now.way_out, urgent=True)


def _course_news(before: RunSummary | None, now: RunSummary) -> News | None:
    if now.state in _LIVE:
        held = held_word(now)
        is_new = held and (before is None or held_word(before) != held)
        title = f"{now.spec_name} {'stalls' if held == 'stalled' else 'is paused'}"
        return News(now.path, title, now.why) if is_new else None
    if before is not None and before.state not in _LIVE:
        return None
    if now.state == "finished":
        return News(now.path, f"{now.spec_name} finished", finished_words(now))
    if now.state == "failed":
        return News(now.path, f"{now.spec_name} failed", why_words(now.cause, now.why))
    return None


def finished_words(run: RunSummary) -> str:
    """What came of a finished run, as far as it was measured."""
    loss = "" if run.held_out_loss is None else f", held-out loss {loss_text(run.held_out_loss)}"
    return counted(run.step, "step") + loss


def _plain(text: str, longest: int, terminal: Terminal) -> str:
    """`text` on one line, without what could end a sequence or divide it, nor what the terminal cannot show."""
    text = "".join(character if character.isprintable() else " " for character in text.replace(";", ","))
    text = printable(" ".join(text.split()), longest)
    return text if terminal.utf8 else text.replace("…", "~").encode("ascii", "replace").decode()
