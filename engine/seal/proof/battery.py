"""The battery: every way out that is known, tried once from within a seal, at doors that are open outside it.

A claim that a run is sealed rests on this, so that it errs to the other side: what gave no answer, or an unclear one,
is not refused; where the doors could not be reached from outside, their silence says nothing (`control`).
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.seal.policy.places import Places
from engine.seal.proof.listener import Listener
from engine.seal.proof.refusals import Refusals, socket_pair
from engine.seal.proof.targets import Targets
from engine.seal.report import SealReport
from engine.seal.request import Level, Sockets
from engine.seal.sealing import start_sealed

_PROBES = Path(__file__).with_name("probes") / "__main__.py"
LIMIT_SECONDS = 60.0
"""From when the battery is started. A quiet machine takes half a second; what did not answer by then counts as open."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One way, by its name, and what came of it in words."""

    name: str
    answer: str


@dataclass(frozen=True, slots=True)
class BatteryResult:
    """What a seal let through and what it did not."""

    tried: int
    """Ways out that were tried; without those that this machine cannot try."""
    refused: int
    open: tuple[Answer, ...]
    """Those that were not refused: `tried` less `refused`."""
    hits: int
    """How often somebody from within came to a door outside."""
    control: bool
    """Whether each of those doors was reached from outside, before and after."""
    seconds: float
    seal: SealReport
    skipped: tuple[Answer, ...]
    """Ways that this machine has no means to try, and why."""
    broken: tuple[Answer, ...]
    """What work needs, and did not get within the seal."""
    answers: Mapping[str, str]
    """Of all ways that were tried: how each was refused, or what it found open."""

    @property
    def closed(self) -> bool:
        """Whether nothing got out, and that says something."""
        return self.control and not self.open and not self.hits and self.tried > 0

    def as_dict(self) -> dict[str, Any]:
        """JSON types, without the seal's own report."""
        values = asdict(self)
        del values["seal"]
        return json.loads(json.dumps(values))


def run_battery(
    places: Places,
    level: Level,
    *,
    sockets: Sockets = "none",
    environment: Mapping[str, str] | None = None,
    ip: str = "127.0.0.1",
) -> BatteryResult:
    """Try all ways out of a process that is sealed like this; waits for them. `ip` is the listener's, an address that
    this machine itself holds. Raises SealRefused where a layer is required and missing, OSError."""
    since = time.monotonic()
    with ExitStack() as stack:
        outside = stack.enter_context(Targets(places, ip))
        control = outside.control()
        seal, answers = _start(stack, outside, places, level, sockets, environment)
        told = _hear(answers, outside.listener, since + LIMIT_SECONDS)
        control = outside.control() and control
        hits = outside.hits()
    return _result(told, hits, control, time.monotonic() - since, seal)


def _start(
    stack: ExitStack,
    outside: Targets,
    places: Places,
    level: Level,
    sockets: Sockets,
    environment: Mapping[str, str] | None,
) -> tuple[SealReport, int]:
    """The probes, sealed, and the descriptor from which their answers come. Raises SealRefused, OSError."""
    given = os.memfd_create("aims")
    stack.callback(os.close, given)
    os.write(given, outside.aims(_writable(places), sockets).to_json().encode())
    os.lseek(given, 0, os.SEEK_SET)
    answers, theirs = os.pipe()
    stack.callback(os.close, answers)
    ours_told, theirs_told = socket_pair()
    refusals = Refusals(ours_told)
    stack.callback(refusals.close)
    stack.enter_context(refusals.answered())
    with theirs_told:
        try:
            process, seal = start_sealed(
                [sys.executable, "-I", "-S", str(_PROBES), str(given), str(theirs)],
                places,
                level,
                pass_fds=(given, theirs),
                sockets=sockets,
                refusals=theirs_told.fileno(),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        finally:
            os.close(theirs)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return seal, answers


def _writable(places: Places) -> str:
    """A folder in which the sealed process may make files."""
    return next((path for path in places.write if Path(path).is_dir() and Path(path) != Path("/dev/shm")), "")


def _hear(answers: int, listener: Listener, deadline: float) -> list[Any]:
    """What the probes say, until they end or their time is over. Visitors are served meanwhile."""
    data = b""
    with selectors.DefaultSelector() as selector:
        selector.register(answers, selectors.EVENT_READ)
        selector.register(listener, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                if key.fileobj is listener:
                    listener.take()
                elif news := os.read(answers, 1 << 16):
                    data += news
                else:
                    return [json.loads(line) for line in data.splitlines()]
    whole, _, _ = data.rpartition(b"\n")
    return [json.loads(line) for line in whole.splitlines()]


def _result(told: list[Any], hits: int, control: bool, seconds: float, seal: SealReport) -> BatteryResult:
    names: list[str] = told[0] if told else []
    heard = {name: (kind, answer) for name, kind, answer in told[1:]}
    unheard = ("open", "no answer came, and no refusal either")
    found = {name: heard.pop(name, unheard) for name in names}
    tried = {name: answer for name, (kind, answer) in found.items() if kind != "skipped"}

    def of(kind: str, among: Mapping[str, tuple[str, str]]) -> tuple[Answer, ...]:
        return tuple(Answer(name, answer) for name, (said, answer) in among.items() if said == kind)

    return BatteryResult(
        tried=len(tried),
        refused=len(of("refused", found)),
        open=of("open", found),
        hits=hits,
        control=control,
        seconds=round(seconds, 3),
        seal=seal,
        skipped=of("skipped", found),
        broken=of("broken", heard),
        answers=tried,
    )
