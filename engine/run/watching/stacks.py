"""Where a worker's Python is: the worker writes its stacks down when it is sent SIGUSR1, even from within native code.

They go into memory that both processes share, so that neither a full disk nor a slow reader is in the way. A stack has
files, lines and names of functions, and nothing of what they work on.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import re
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

STACKS_VARIABLE = "FINETUI_STACKS"
"""The environment variable that names the worker's descriptor for its stacks."""

_MOST_FRAMES = 12
_MOST_BYTES = 1 << 18
_FRAME = re.compile(r'  File "(?P<path>.*)", line (?P<line>\d+) in (?P<function>.*)')
_OURS = re.compile(r"(?:^|/)((?:engine|profiles)/[^/].*)$")
_LIBRARY = re.compile(r".*/(?:site-packages|dist-packages|lib/python3\.\d+)/(.+)$")
# How `python -m` comes to our own code, which tells nothing.
_STARTING = ("<frozen runpy>", "runpy.py")


def register_stacks() -> None:
    """From now on SIGUSR1 has this process write down its stacks for the supervisor that handed it a place for them."""
    if number := os.environ.pop(STACKS_VARIABLE, ""):
        os.set_inheritable(int(number), False)
        faulthandler.register(signal.SIGUSR1, file=int(number), all_threads=True)


class Stacks:
    """The stacks of one worker, from its supervisor's side."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._descriptor = os.memfd_create("stacks", os.MFD_CLOEXEC)
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, os.O_APPEND)
        self._asked = 0

    def fileno(self) -> int:
        """The descriptor that the worker is to have as well."""
        return self._descriptor

    def ask(self, pid: int) -> bool:
        """Have the worker write its stacks; `read` has them some milliseconds later. False when it does not know how,
        or not yet: the signal would end it."""
        if not _has_signal(pid, "SigCgt", signal.SIGUSR1):
            return False
        self._asked = pid
        os.ftruncate(self._descriptor, 0)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR1)
            return True
        return False

    def read(self) -> str:
        """What the worker wrote since it was asked; "" when it did not come to it yet, or is still at it."""
        # It writes in many small parts, and the signal is held back in its main thread until the last one.
        if not os.pread(self._descriptor, 1, 0) or _has_signal(self._asked, "SigBlk", signal.SIGUSR1):
            return ""
        return os.pread(self._descriptor, _MOST_BYTES, 0).decode("utf-8", "replace")

    def close(self) -> None:
        os.close(self._descriptor)


def telling_frames(text: str) -> list[str]:
    """The frames of the main thread that tell where it is, innermost last, as "engine/train/step.py:33 in update". Of
    more than a dozen the innermost stay, and of the others as many of our own as there is room for."""
    # Threads come newest first, and the main one is the oldest.
    blocks = [block for block in text.split("\n\n") if "most recent call first" in block]
    found = [match for line in blocks[-1].splitlines() if (match := _FRAME.match(line))] if blocks else []
    frames = [(_short(match["path"]), f":{match['line']} in {match['function']}") for match in reversed(found)]
    frames = [(path, rest) for path, rest in frames if path not in _STARTING]
    if len(frames) > _MOST_FRAMES:
        innermost = frames[-_MOST_FRAMES // 2 :]
        ours = [frame for frame in frames[: -len(innermost)] if _OURS.search(frame[0])]
        frames = ours[-(_MOST_FRAMES - len(innermost)) :] + innermost
    return [path + rest for path, rest in frames]


def innermost_of_ours(frames: Sequence[str]) -> str:
    """The frame of our own code nearest to where the process is; "" when there is none."""
    return next((frame for frame in reversed(frames) if _OURS.match(frame)), "")


def _short(path: str) -> str:
    """The path without where things are installed."""
    for place in (_LIBRARY, _OURS):
        if found := place.search(path):
            return found[1]
    return "/".join(Path(path).parts[-2:]) if path.startswith("/") else path


def _has_signal(pid: int, field: str, number: signal.Signals) -> bool:
    """Whether a signal is in a set of a process: SigCgt (it has a handler) or SigBlk (held back in its main thread)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    found = re.search(rf"^{field}:\s*([0-9a-f]+)", status, re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> (number - 1) & 1)
