"""What our child processes have in common: the lines they speak, their limits, ending with their parent, and how one
ended in a sentence."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import IO, Any

from engine.logged_errors import keep_data_out_of_errors
from profiles.problem import printable

_PR_SET_PDEATHSIG = 1

Send = Callable[..., None]


def describe_exit(status: int) -> str:
    """How a process with this Popen return code ended, as the end of a sentence about it."""
    if status >= 0:
        return f"ended with status {status}"
    name = signal.Signals(-status).name
    if status == -signal.SIGKILL:
        return f"was killed from outside ({name}), often by the kernel when memory ran out"
    return f"was ended by {name}"


def last_line(log: IO[bytes], start: int = 0) -> str:
    """The last line with something on it in `log` after byte `start`; "" when there is none."""
    size = log.seek(0, os.SEEK_END)
    log.seek(max(start, size - 4096))
    lines = log.read().decode("utf-8", "replace").split("\n")
    return printable(next((line.strip() for line in reversed(lines) if line.strip()), ""), 200)


def limit_address_space(most_bytes: int) -> None:
    """Let this process map no more than `most_bytes`, or than it may already where that is less (`ulimit -v`)."""
    _, allowed = resource.getrlimit(resource.RLIMIT_AS)
    if allowed == resource.RLIM_INFINITY or most_bytes < allowed:
        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, allowed))


def mapped_bytes() -> int:
    """The address space that this process takes now."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().split()[0]) * resource.getpagesize()


def limit_processor_time(more_seconds: int) -> None:
    """Have the kernel end this process (SIGXCPU) once it has computed for so long from now; without a dump of its
    memory, which would hold what it worked on. May be called again and again."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, allowed = resource.getrlimit(resource.RLIMIT_CPU)
    most = int(used.ru_utime + used.ru_stime) + 1 + more_seconds
    resource.setrlimit(
        resource.RLIMIT_CPU, (most if allowed == resource.RLIM_INFINITY else min(most, allowed), allowed)
    )
    # Of 1 byte, and not 0: only that keeps the kernel from handing the dump to a program of the machine's too.
    _, allowed = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0 if allowed == 0 else 1, allowed))


def signal_on_parent_death(number: int) -> None:
    """Have the kernel send this process the signal `number` when its parent ends, or rather the thread of it that
    started this process: that should be one which lives as long as the parent."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def end_with(parent: int) -> None:
    """Have the kernel kill this process when the one numbered `parent`, which started it, ends; also where it has. A
    process that waits for this one in the thread that started it gives `os.getppid()`."""
    signal_on_parent_death(signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        os._exit(1)


def take_stdout() -> Send:
    """The function that writes protocol lines to stdout, which from here on nothing else can write to.

    For the child's side: whatever a library prints goes to stderr, and so into the log, and what is not caught is told
    there without a word of the data.
    """
    keep_data_out_of_errors()
    wire = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="ascii", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def send(kind: str, **fields: Any) -> None:
        wire.write(json.dumps({"kind": kind, **fields}) + "\n")

    return send
