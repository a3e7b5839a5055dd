"""`python -I -S .../probes/__main__.py AIMS ANSWERS`: tries each way once, sealed as the process that runs it is.

Reads Aims from one descriptor; writes to the other one JSON line for each way: [name, "refused" | "open" | "skipped" |
"works" | "broken", answer]. The list of all names comes first, so that the reader knows what was not answered. Each
way is tried in a process of its own, some at a time: what a filter kills, or what hangs, is itself an answer.
"""

from __future__ import annotations

import os
import sys

# Isolated, the interpreter knows only its own library; the tree's root is four folders up.
sys.path.append(os.path.realpath(__file__).rsplit("/engine/", 1)[0])

import errno
import json
import select
import signal
import time
from collections.abc import Callable

from engine.seal.proof.probes import beneath, deeper, files, local, needs, network, processes
from engine.seal.proof.probes.aims import Aims
from engine.seal.proof.probes.calls import Refused, Skip

Probe = Callable[[Aims], str]

# As many as keep a small machine busy while one of them waits.
_AT_ONCE = 6
# A hundred times what the slowest takes on a quiet machine.
_SECONDS = 10.0
_MOST_SECONDS = 12
# How the kernel, or a seal, says no. Any other error is one of the attempt itself, and says nothing.
_REFUSALS = frozenset(
    {
        *(errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EROFS, errno.ENOENT, errno.ESRCH, errno.ENXIO, errno.ENODEV),
        *(errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN),
        *(errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT, errno.EXDEV),
    }
)

WAYS_OUT: tuple[tuple[str, Probe], ...] = (
    *(*network.PROBES, *beneath.PROBES, *local.PROBES),
    *(*processes.PROBES, *files.PROBES, *deeper.PROBES),
)


def main(aims_descriptor: int, answers_descriptor: int) -> None:
    with os.fdopen(aims_descriptor, "rb") as file:
        aims = Aims.from_json(file.read().decode())
    _tell(answers_descriptor, [name for name, _ in WAYS_OUT])
    waiting = [(name, probe, False) for name, probe in WAYS_OUT] + [(name, need, True) for name, need in needs.NEEDS]
    waiting.reverse()
    running: dict[int, tuple[str, int, float, bool]] = {}
    while waiting or running:
        while waiting and len(running) < _AT_ONCE:
            name, probe, needed = waiting.pop()
            descriptor, pid = _start(probe, aims, answers_descriptor)
            running[descriptor] = (name, pid, time.monotonic() + _SECONDS, needed)
        first_deadline = min(deadline for _, _, deadline, _ in running.values())
        ready, _, _ = select.select(list(running), [], [], max(first_deadline - time.monotonic(), 0))
        for descriptor, (name, pid, deadline, needed) in list(running.items()):
            if descriptor in ready or time.monotonic() >= deadline:
                kind, answer = _finish(descriptor, pid, hangs=descriptor not in ready)
                if needed:
                    kind = {"open": "works", "refused": "broken"}.get(kind, kind)
                del running[descriptor]
                _tell(answers_descriptor, [name, kind, answer])


def _start(probe: Probe, aims: Aims, answers: int) -> tuple[int, int]:
    """A process that tries one way. Gives the descriptor from which its answer comes, and its pid."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid:
        os.close(theirs)
        return ours, pid
    try:
        os.close(answers)
        signal.alarm(_MOST_SECONDS)  # should whoever started it be gone; what it becomes by exec keeps that
        os.write(theirs, json.dumps(_answer(probe, aims)).encode())
    finally:
        os._exit(0)


def _answer(probe: Probe, aims: Aims) -> tuple[str, str]:
    try:
        return "open", probe(aims)
    except Skip as error:
        return "skipped", str(error)
    except Refused as error:
        return "refused", str(error)
    except TimeoutError:
        return "open", "no answer came, and no refusal either"
    except OSError as error:
        number = getattr(getattr(error, "reason", error), "errno", None)  # urllib wraps it
        name = errno.errorcode.get(number or 0, "") or f"{type(error).__name__}: {error}"
        return ("refused", name) if number in _REFUSALS else ("open", f"unclear: {name}")
    except Exception as error:
        return "open", f"unclear: {type(error).__name__}: {error}"


def _finish(descriptor: int, pid: int, *, hangs: bool) -> tuple[str, str]:
    """The answer of a process that gave one, or was ended over it."""
    if hangs:
        os.kill(pid, signal.SIGKILL)
        said = b""
    else:
        said = os.read(descriptor, 1 << 16)
    os.close(descriptor)
    _, status = os.waitpid(pid, 0)
    if hangs:
        return "open", f"no answer within {_SECONDS:g} s, and no refusal either"
    if said:
        kind, answer = json.loads(said)
        return kind, answer
    if os.WIFSIGNALED(status):
        return _killed(os.WTERMSIG(status))
    return "open", f"no answer: it ended with status {os.waitstatus_to_exitcode(status)}"


def _killed(number: int) -> tuple[str, str]:
    name = signal.Signals(number).name
    if number == signal.SIGSYS:
        return "refused", f"killed ({name})"
    if number == signal.SIGSEGV:  # int 0x80 where the kernel knows no 32-bit programs
        return "refused", f"the kernel knows no such call ({name})"
    return "open", f"no answer: killed by {name}"


def _tell(descriptor: int, record: list[str]) -> None:
    os.write(descriptor, json.dumps(record).encode() + b"\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
