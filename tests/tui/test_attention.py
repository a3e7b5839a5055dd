"""Calling a person: what is written for which terminal, byte by byte, and what is news once only."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from fake_run import STALL, make_run
from fake_source import summary
from pty_app import PtyApp

from tui.attention import Attention, NewsDesk, news
from tui.terminal import Terminal

REPOSITORY = Path(__file__).resolve().parents[2]
UTF8 = {"LANG": "C.UTF-8"}


def written(environ: Mapping[str, str], title: str = "intake failed", text: str = "disk full") -> str:
    pieces: list[str] = []
    Attention(Terminal.detect({**UTF8, **environ}), pieces.append).call(title, text)
    assert len(pieces) <= 1  # in one piece, so that nothing comes between
    return "".join(pieces)


OSC_9 = "\x1b]9;finetui: intake failed: disk full\a"
OSC_777 = "\x1b]777;notify;intake failed;disk full\a"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TERM": "xterm-256color"}, OSC_9),
        ({"TERM": "xterm-kitty"}, OSC_9),
        ({"TERM": "xterm-ghostty", "TERM_PROGRAM": "ghostty"}, OSC_9),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, OSC_9),
        ({"TERM": "rxvt-unicode-256color"}, OSC_777),
        ({"TERM": "foot"}, OSC_777),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "230804"}, OSC_777),
        ({"TERM": "xterm-256color", "VTE_VERSION": "7603"}, OSC_777),
        # These print what they do not know, or show nothing: the bell alone.
        ({"TERM": "xterm-256color", "VTE_VERSION": "4200"}, ""),
        ({"TERM": "linux"}, ""),
        ({"TERM": "vt220"}, ""),
        ({"TERM": "dumb"}, ""),
        ({}, ""),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, ""),
        ({"TERM": "tmux-256color", "TMUX": "/tmp/tmux-1000/default,1,0"}, f"\x1bPtmux;\x1b{OSC_9}\x1b\\"),
        # tmux here, finetui at the other end of an SSH connection.
        ({"TERM": "tmux-256color"}, f"\x1bPtmux;\x1b{OSC_9}\x1b\\"),
        ({"TERM": "screen-256color", "TMUX": "x", "VTE_VERSION": "7603"}, f"\x1bPtmux;\x1b{OSC_777}\x1b\\"),
        ({"TERM": "screen.xterm-256color", "STY": "1.pts-0"}, f"\x1bP{OSC_9}\x1b\\"),
        ({"TERM": "screen"}, f"\x1bP{OSC_9}\x1b\\"),
        ({"TERM": "xterm-256color", "FINETUI_NOTIFY": "bell"}, ""),
    ],
)
def test_the_bell_comes_first_then_what_the_terminal_shows(environ: Mapping[str, str], expected: str) -> None:
    assert written(environ) == "\a" + expected


def test_nothing_is_written_where_nothing_is_wanted() -> None:
    assert written({"TERM": "xterm", "FINETUI_NOTIFY": "off"}) == ""


@pytest.mark.parametrize("environ", [{"TERM": "xterm"}, {"TERM": "foot"}, {"TERM": "tmux"}, {"TERM": "screen"}])
def test_no_name_ends_a_sequence_or_begins_another(environ: Mapping[str, str]) -> None:
    evil = "4;1;50\x1b\\\x07\x9c\x18\n;x\u202e"
    plain = written(environ, "name", "text")
    said = written(environ, evil, evil * 9)
    for sign in ("\x1b", "\x07", ";", "\x9c", "\x18", "\n", "\u202e"):
        assert said.count(sign) == plain.count(sign), repr(sign)
    assert "\x1b]9;4" not in said.replace("\x1b\x1b", "\x1b") and len(said.encode()) < 768


def test_a_terminal_that_is_not_utf8_gets_ascii() -> None:
    assert written({"TERM": "xterm", "LC_ALL": "C"}, "名前", "é" * 200).isascii()


def test_each_end_and_each_stall_is_news_once() -> None:
    desk = NewsDesk()
    long_past = summary("long-past", "failed", why="disk full")
    running = summary("a", "running")

    def told(*runs) -> list[tuple[str, str]]:
        return [(each.title, each.text) for each in desk.read([long_past, *runs])]

    assert told(running) == []
    stalled = summary("a", "running", stalled=True, why="nothing was heard for 5 min")
    assert told(stalled) == [("a stalls", "nothing was heard for 5 min")]
    assert told(stalled) == []
    assert told(running) == []
    assert told(stalled) == [("a stalls", "nothing was heard for 5 min")]
    paused = summary("a", "running", paused=True, why="no room on the disk")
    assert told(paused) == [("a is paused", "no room on the disk")]
    assert told(paused) == []
    not_a_number = summary("a", "failed", cause="not_finite", why="the loss of step 412")
    assert told(not_a_number) == [("a failed", "not a number: the loss of step 412")]
    assert told(not_a_number) == [] == told()  # gone from the list for a moment, as on a network disk
    assert told(not_a_number) == []
    assert told(summary("a", "running")) == []
    assert told(summary("a")) == [("a finished", "1,200 steps, held-out loss 0.421")]
    # One that began and ended between two readings is news; one that another home brought into view is not.
    assert told(summary("quick", started_at=time.time() + 1), summary("old")) == [
        ("quick finished", "1,200 steps, held-out loss 0.421")
    ]


def test_an_open_seal_and_each_place_that_tries_to_get_out_are_news_once() -> None:
    desk = NewsDesk()

    def told(**changes: object) -> list[tuple[str, str, bool]]:
        return [(each.title, each.text, each.urgent) for each in desk.read([summary("a", "running", **changes)])]

    assert told() == []
    tried = {"ways_out": 1, "way_out": "connect to 192.0.2.1 (loader.py:41)"}
    assert told(**tried) == [("a: a way out was tried", "connect to 192.0.2.1 (loader.py:41)", True)]
    assert told(**tried) == []
    both = {**tried, "seal": "changed", "seal_broken": "a route leads out", "ways_out": 2, "way_out": "DNS (hub.py:7)"}
    opened, again = ("a: seal changed", "a route leads out", True), ("a: a way out was tried", "DNS (hub.py:7)", True)
    assert told(**both) == [opened, again]
    stalled = {**both, "stalled": True, "why": "nothing was heard for 5 min"}
    assert told(**stalled) == [("a stalls", "nothing was heard for 5 min", False)]
    # How a run ended that needed the seal says so already.
    ended = summary(
        "b", "failed", seal="open", seal_broken="a way out is open", cause="unsealed", why="1 way out is open"
    )
    assert [each.title for each in news(summary("b", "running"), ended)] == ["b failed"]


def test_a_stop_is_no_news_to_whoever_asked_for_it() -> None:
    assert news(summary("a", "running"), summary("a", "stopped", why="on request")) == []


@pytest.fixture
def going(tmp_path: Path):
    """A live run's folder and the process that plays it; the run ends when that is told to."""
    player = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("fake_run.py")), str(tmp_path), "intake", "--events"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert player.stdin is not None and player.stdout is not None
    yield Path(player.stdout.readline().strip()), player.stdin
    player.kill()
    player.wait()
    player.stdin.close()
    player.stdout.close()


def end(stdin, outcome: str, **fields: object) -> None:
    stdin.write(json.dumps({"kind": "end", "outcome": outcome, "step": 400, **fields}) + "\n")
    stdin.flush()


FAILED = {"outcome": "failed", "cause": "disk_full", "why": "step 400 was not saved", "remedy": "Free some space."}
SAID = b"intake failed;disk full: step 400 was not saved\a"


def test_the_app_calls_once_and_never_inside_a_frame(tmp_path: Path, going) -> None:
    _, stdin = going
    make_run(tmp_path, "long-past", until=90, outcome="failed", planned=4000, started_at=1.76e9)
    opening = "from tui.app import FinetuiApp; from tui.follow import Follower; "
    code = f"{opening}Follower.RUNS_BELOW_SECONDS = 0.2; FinetuiApp().run()"
    variables = {"FINETUI_HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY), "TERM": "rxvt-unicode-256color"}
    with PtyApp([sys.executable, "-c", code], variables) as terminal:
        terminal.wait_for("● running")
        assert b"777" not in terminal.written
        end(stdin, **FAILED)
        terminal.wait_for(lambda: SAID in terminal.written)
        terminal.wait_for("Free some space.")
        terminal.wait_until_quiet(1.5)
        sequence = b"\a\x1b]777;notify;" + SAID
        assert terminal.written.count(b"777;") == terminal.written.count(sequence) == 1
        before = terminal.written[: terminal.written.index(sequence)]
        # A frame begins with ?2026h and ends with ?2026l where the terminal draws whole frames.
        assert before.rfind(b"\x1b[?2026h") < before.rfind(b"\x1b[?2026l")


def test_a_stall_calls_once_and_is_asked_about_and_no_clock_ticks(tmp_path: Path, going) -> None:
    _, stdin = going
    opening = "from tui.app import FinetuiApp; from tui.follow import Follower; "
    code = f"{opening}Follower.RUNS_BELOW_SECONDS = 0.2; FinetuiApp().run()"
    variables = {"FINETUI_HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY), "TERM": "foot"}
    with PtyApp([sys.executable, "-c", code], variables) as terminal:
        terminal.wait_for("● running")
        stdin.write(json.dumps(STALL) + "\n")
        stdin.flush()
        terminal.wait_for("restart from step 400")
        terminal.wait_for(lambda: b"intake stalls;nothing was heard" in terminal.written)
        terminal.wait_until_quiet(2)
        assert terminal.written.count(b"777;") == 1
        stdin.write(json.dumps({"kind": "phase", "phase": "training"}) + "\n")
        stdin.flush()
        terminal.wait_for(lambda: "stalls" not in terminal.text and "stalled" not in terminal.text)
        terminal.type("q")
        assert terminal.wait_for_exit() == 0


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_watch_calls_where_standard_error_is_a_terminal(tmp_path: Path, going, more: list[str]) -> None:
    folder, stdin = going
    variables = {"FINETUI_HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY), "TERM": "foot"}
    with PtyApp([sys.executable, "-m", "tui", "watch", folder.name, *more], variables, columns=200) as terminal:
        terminal.wait_for(lambda: b"401" in terminal.written or b"held-out" in terminal.written)
        end(stdin, **FAILED)
        assert terminal.wait_for_exit() == 1
        assert terminal.written.count(b"\x1b]777;notify;" + SAID) == 1
    with PtyApp([sys.executable, "-m", "tui", "watch", folder.name, *more], variables, columns=200) as terminal:
        assert terminal.wait_for_exit() == 1
        assert b"\x1b]777" not in terminal.written  # it is long past


@pytest.mark.skipif(shutil.which("tmux") is None, reason="there is no tmux")
def test_tmux_passes_the_notification_on_and_prints_none_of_it(tmp_path: Path) -> None:
    """What is wrapped for tmux comes out at the outer terminal as it would have been written there."""
    call = "from tui.attention import Attention; from tui.terminal import Terminal; import sys; "
    call += (
        "input(); Attention(Terminal.detect(), sys.stdout.write).call('intake failed', 'disk full'); input('called')"
    )
    script = tmp_path / "call.py"
    script.write_text(call)
    socket = f"finetui-test-{os.getpid()}"
    command = ["tmux", "-L", socket, "-f", "/dev/null", "new-session", f"{sys.executable} {script}"]
    command += [";", "set", "-g", "allow-passthrough", "on"]
    try:
        with PtyApp(command, {"PYTHONPATH": str(REPOSITORY), "TMUX": ""}) as terminal:
            terminal.wait_for("[0]")  # its status line: tmux has read its options, too
            terminal.type("\r")
            terminal.wait_for("called")
            terminal.wait_for(lambda: OSC_9.encode() in terminal.written)
            assert "finetui:" not in terminal.text and "tmux;" not in terminal.text
    finally:
        subprocess.run(["tmux", "-L", socket, "kill-server"], check=False, capture_output=True)
