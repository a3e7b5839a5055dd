"""Counting what tries to get out of a seal, and what of it a journal holds."""

from __future__ import annotations

import errno
import json
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from engine.run.directory import RunDirectory
from engine.run.sealing.lines import SealLines
from engine.run.sealing.ways_out import WaysOut
from engine.run.telemetry.folding import fold
from engine.run.telemetry.journal import JournalWriter
from engine.run.telemetry.snapshot import load_snapshot, save_snapshot
from engine.seal.ability import ability
from engine.seal.policy.places import reading_places
from engine.seal.proof import refusals as counted
from engine.seal.proof.refusals import Refusals, call_text, socket_pair
from engine.seal.sealing import start_sealed

needs_seccomp = pytest.mark.skipif(
    "seccomp" not in [each.layer for each in ability().layers if each.held], reason="this machine has no seccomp"
)

_KNOCK = """
import ctypes, sys
library = ctypes.CDLL(None, use_errno=True)
for _ in range(int(sys.argv[1])):
    library.socket(10, 2, 0)
    print(ctypes.get_errno(), flush=True)
"""


def knock(times: int) -> tuple[subprocess.Popen[str], Refusals]:
    """A sealed process that asks for a socket so many times and prints each answer, and who hears of it."""
    ours, theirs = socket_pair()
    with theirs:
        process, _ = start_sealed(
            [sys.executable, "-c", _KNOCK, str(times)],
            reading_places(()),
            "best",
            refusals=theirs.fileno(),
            stdout=subprocess.PIPE,
            text=True,
        )
    return process, Refusals(ours)


@needs_seccomp
def test_each_call_is_answered_and_told_in_words():
    process, refusals = knock(3)
    with process, refusals.answered() as tried:
        said, _ = process.communicate(timeout=30)
    assert said.split() == [str(errno.EACCES)] * 3
    assert {(each.what, each.pid) for each in tried} == {("socket(AF_INET6, SOCK_DGRAM)", process.pid)}
    assert sum(each.count for each in tried) == 3
    refusals.close()


@needs_seccomp
def test_who_is_killed_while_its_call_waits_holds_up_nobody():
    process, refusals = knock(1_000_000)
    with process:
        refusals.take()  # the listener, and what there was already
        wait_until(lambda: _is_asked(refusals))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert sum(each.count for each in refusals.take()) <= 1
        assert refusals.take() == [] and refusals.fileno() == -1, "nobody is left under that filter"


def _is_asked(refusals: Refusals) -> bool:
    poll = select.poll()
    poll.register(refusals.fileno(), select.POLLIN)
    return bool(poll.poll(0))


@needs_seccomp
def test_a_program_gone_wild_is_refused_by_the_kernel_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(counted, "MOST_TRIES", 20)
    process, refusals = knock(50)
    with process, refusals.answered() as tried:
        said, _ = process.communicate(timeout=30)
    answers = list(map(int, said.split()))
    assert len(answers) == 50 and set(answers) == {errno.EACCES, errno.ENOSYS}
    assert refusals.overrun and sum(each.count for each in tried) == answers.count(errno.EACCES) < 50


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([2, 0o2000001, 0], "socket(AF_INET, SOCK_STREAM)"),
        ([2 | 7 << 32, 3, 1], "socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)"),
        ([16, 3, 9], "socket(AF_NETLINK, SOCK_RAW, 9)"),
        ([99, 7, 0], "socket(99, 7)"),
    ],
)
def test_a_socket_is_named_by_what_the_kernel_sees_of_it(arguments: list[int], text: str):
    assert call_text("socket", 41, arguments) == text


def test_tries_are_told_once_a_second_and_each_of_them_once():
    now = [0.0]
    ways = WaysOut(lambda: now[0])
    told: list[dict[str, Any]] = []
    for moment in range(40):  # tenths of a second
        now[0] = moment / 10
        ways.add("socket(AF_INET)", "", "python", 7, 3)
        told += ways.due()
    assert len(told) == 4 and list(ways.due()) == []
    told += ways.due(everything=True)
    assert sum(each["count"] for each in told) == 120
    assert told[0]["text"] == "python (process 7) tried to get out 3 times and was refused: socket(AF_INET)"


def test_a_program_cannot_fill_the_journal_with_names_of_its_own():
    ways = WaysOut(lambda: 0.0)
    for number in range(5000):
        ways.add(f"connection to host-{number}\x1b[2J" + "x" * 5000, f"evil.py:{number}", "python", 7)
    told = list(ways.due())
    assert len(told) == 10 and list(ways.due()) == [], "each of them is brought onto the disk"
    told += ways.due(everything=True)
    assert len(told) <= 101 and sum(each["count"] for each in told) == 5000
    assert all(len(each["what"]) <= 200 and "\x1b" not in each["text"] for each in told)


def test_who_tried_is_the_kernel_s_word_and_not_the_sender_s():
    lines = SealLines()
    sender = """
import json, os, socket, sys
line = socket.socket(fileno=int(sys.argv[1]))
os.setpgid(0, 0)
line.sendmsg(
    [json.dumps({"what": "a call", "where": "x.py:1", "pid": 1}).encode()],
    [(socket.SOL_SOCKET, socket.SCM_RIGHTS, (0).to_bytes(4, sys.byteorder))],
)
"""
    number = lines.guard_descriptor
    with subprocess.Popen([sys.executable, "-c", sender, str(number)], pass_fds=[number]) as process:
        process.wait(30)
        before = list(Path("/proc/self/fd").iterdir())
        assert list(lines.guards.take()) == [("a call", "x.py:1", process.pid)]
        assert len(list(Path("/proc/self/fd").iterdir())) == len(before), "a descriptor that came along was taken in"
    lines.close()


def test_days_of_tries_make_the_journal_grow_by_little():
    now = [0.0]
    ways, told = WaysOut(lambda: now[0]), 0
    for second in range(3 * 3_600):
        now[0] = float(second)
        ways.add(f"call {second % 90}", "", "python", 7)
        told += sum(1 for _ in ways.due())
    assert 1_000 <= told <= 1_000 + 3 * 60 * 10 + 10


SEAL = {
    "number": 1,
    "level": "best",
    "layers": [],
    "milliseconds": 2.5,
    "probes": None,
    "evidence": {},
    "text": "sealed",
}
CHECK = {"when": "checkpoint", "step": 3, "evidence": {"seccomp": 2}, "changed": ["it is in another network namespace"]}
WAY = {"what": "socket(AF_INET)", "where": "", "process": "python", "pid": 7, "count": 2, "text": "tried"}


@pytest.fixture
def journal(tmp_path: Path) -> Callable[..., RunDirectory]:
    def write(*events: tuple[str, dict[str, Any]]) -> RunDirectory:
        run = RunDirectory(tmp_path)
        writer = JournalWriter(run.events_path)
        for kind, fields in events:
            writer.append(kind, **fields)
        writer.close()
        return run

    return write


def test_the_seal_of_a_run_is_in_its_state_and_in_a_snapshot_of_it(journal: Callable[..., RunDirectory]):
    run = journal(("seal", SEAL), ("seal_check", CHECK), ("way_out", WAY), ("way_out", WAY))
    state = fold(json.loads(line) for line in run.events_path.read_bytes().splitlines())
    assert (state.seal["text"], state.seal["changed"], state.seal_checks) == ("sealed", [], 1)
    assert state.seal_last_check["step"] == 3 and state.seal_changed == tuple(CHECK["changed"])
    assert state.ways_out_tried == 4 and len(state.ways_out) == 1
    save_snapshot(run, state, deque(), run.events_path.stat().st_size)
    kept = load_snapshot(run)
    assert kept is not None and kept[0] == state


def test_a_seal_that_is_tried_again_begins_a_resumed_run_anew():
    end = {"kind": "end", "outcome": "stopped", "why": "x", "step": 0}
    phase = {"kind": "phase", "phase": "preparing", "detail": "testing the seal"}
    stopped = fold([{"seq": 1, "at": time.time(), **end}])
    again = fold([{"seq": 2, "at": time.time(), **phase}], stopped)
    assert (stopped.outcome, again.outcome, again.phase_detail) == ("stopped", None, "testing the seal")
