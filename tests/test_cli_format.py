"""How numbers and the terminal are put into words: the values at which the wording changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tui import format
from tui.commands.output import table
from tui.terminal import Terminal

KIB, MIB, GIB = 1024, 1024**2, 1024**3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (format.bytes_text(None), "-"),
        (format.bytes_text(0), "0 B"),
        (format.bytes_text(1023), "1023 B"),
        (format.bytes_text(1024 * KIB - 1), "1.0 MiB"),
        (format.bytes_text(7.9 * GIB), "7.9 GiB"),
        (format.bytes_text(99.95 * GIB), "100 GiB"),
        (format.bytes_text(812 * GIB), "812 GiB"),
        (format.bytes_of_text(7.9 * GIB, 24 * GIB), "7.9 of 24.0 GiB"),
        (format.bytes_of_text(900 * MIB, 128 * GIB), "0.9 of 128 GiB"),
        (format.bytes_of_text(None, GIB), "- of 1.0 GiB"),
        (format.count_text(1200), "1,200"),
        (format.compact_text(950), "950"),
        (format.compact_text(999_960), "1.0 M"),
        (format.compact_text(1_900_000), "1.9 M"),
        (format.compact_text(125_000), "125 k"),
        (format.duration_text(None), "-"),
        (format.duration_text(float("inf")), "-"),
        (format.duration_text(99.4), "99 s"),
        (format.duration_text(100), "2 min"),
        (format.duration_text(18 * 60), "18 min"),
        (format.duration_text(125 * 60), "2 h 05 min"),
        (format.duration_text(76 * 3600), "3 d 4 h"),
        (format.rate_text(3080.4), "3,080 tok/s"),
        (format.rate_text(4.21), "4.2 tok/s"),
        (format.loss_text(0.4116), "0.412"),
        (format.loss_text(None, "nan"), "nan"),
        (format.loss_text(123456.0), "1.23e+05"),
        (format.learning_rate_text(2e-4), "2.0e-4"),
        (format.learning_rate_text(0.0), "0"),
        (format.share_text(0.945), "94.5 %"),
        (format.share_text(1.0), "100 %"),
        (format.share_text(0.07), "7 %"),
        (format.share_text(0.00044), "0.04 %"),
        (format.steps_text(412, 1200), "412/1,200"),
        (format.steps_text(3, None), "3"),
        (format.counted(1, "row"), "1 row"),
        (format.counted(4812, "row"), "4,812 rows"),
    ],
)
def test_numbers(text: str, expected: str):
    assert text == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TERM": "xterm", "LANG": "en_GB.UTF-8"}, Terminal()),
        ({"TERM": "xterm"}, Terminal()),
        ({"TERM": "xterm", "LANG": "C.utf8", "LC_ALL": "C"}, Terminal(utf8=False, ascii=True)),
        ({"TERM": "xterm", "LANG": "de_DE@euro"}, Terminal(utf8=False, ascii=True)),
        ({"TERM": "dumb", "LANG": "C.UTF-8"}, Terminal(no_color=True, dumb=True)),
        ({"TERM": "xterm", "NO_COLOR": "1"}, Terminal(no_color=True)),
        ({"TERM": "xterm", "NO_COLOR": ""}, Terminal()),
        ({"TERM": "tmux", "TMUX": "/tmp/t,1,0", "SSH_CONNECTION": "a 1 b 2"}, Terminal(tmux=True, ssh=True)),
    ],
)
def test_terminals_are_told_from_the_environment(environ: dict[str, str], expected: Terminal, monkeypatch):
    monkeypatch.setattr("os.get_terminal_size", no_terminal)
    # How it is told of news has tests of its own (tests/tui/test_attention.py).
    assert replace(Terminal.detect(environ), notice="", carrier="") == expected
    assert Terminal.detect(environ, ascii=True).ascii


def no_terminal(descriptor: int) -> None:
    raise OSError("not a terminal")


def test_tables_align_wide_characters_and_escape_control_characters():
    assert table(("run", "step"), [["見本", "5"], ["a\x1b[2J", "1,200"]], right=("step",)) == [
        "run        step",
        "見本          5",
        "a\\x1b[2J  1,200",
    ]
