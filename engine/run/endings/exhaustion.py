"""Telling that memory ran out: from what libraries say when it does, and from the kernel's own count of its kills."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.run.endings.errors import raised_from
from profiles.ladder import Where
from profiles.machine.host import HostFiles
from profiles.problem import Problem, printable

# In the order of the list: torch on a CPU (two wordings), the C++ library, torch on a GPU, cuBLAS, the CUDA runtime,
# bitsandbytes' kernels, the driver, Python's threads (which need a stack each) and the C library's word for ENOMEM.
_SAID = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory|not enough memory: you tried to allocate"
    r"|std::bad_alloc|\bMemoryError\b"
    r"|CUDA(?: error:|) out of memory|OutOfMemoryError"
    r"|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED"
    r"|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY"
    r"|(?:[Ee]rror:?|:) *[Oo]ut of memory|HIP out of memory"
    r"|can't start new thread|Cannot allocate memory"
)

BASE_DETAIL = "what the base makes of the rows"
"""The detail that a run tells while the untouched base goes over the rows."""

# Functions in whose frames memory ran out, and what that means; the outermost of them counts, since a trial of the
# model's forward is a part of loading, too.
_DOING: dict[str, Where] = {
    "build": "loading",
    "judge_held_out": "evaluation",
    "_observe": "evaluation",  # of the trial step
    "refer": "evaluation",
    "generate_answers": "answers",
    "save_checkpoint": "saving",
    "write_outputs": "saving",
    "load_checkpoint": "loading",
}


def ran_out_of_memory(text: str) -> bool:
    """Whether a library's words mean that memory ran out."""
    return _SAID.search(text) is not None


def shortage(error: BaseException) -> str | None:
    """The words that say memory ran out, in `error` or in what it was raised from; None when it is another fault."""
    for each in raised_from(error):
        # A problem's own words may quote a person's data; what it was raised from may not.
        if not isinstance(each, Problem) and (said := _said(each)) is not None:
            return printable(said, 300)
    return None


def _said(error: BaseException) -> str | None:
    text, kind = str(error).strip(), type(error).__name__
    if (found := _SAID.search(text)) is not None:
        return text[found.start() :].splitlines()[0]
    if _SAID.search(kind) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return f"{kind}: {text}".rstrip(": ").splitlines()[0]
    return None


def where_it_ran_out(error: BaseException) -> Where:
    """What the training process was doing, from the functions that `error` came through."""
    frame = error.__traceback__
    while frame is not None:
        if (where := _DOING.get(frame.tb_frame.f_code.co_name)) is not None:
            return where
        frame = frame.tb_next
    return "step"


def where_by_phase(phase: str, detail: str) -> Where:
    """What the training process was doing, from the phase it last told of: for one that was killed."""
    if phase == "preparing" and BASE_DETAIL in detail:
        return "evaluation"
    if phase in ("preparing", "loading"):
        return "step" if "trial step" in detail else "loading"
    if phase == "evaluating":
        return "evaluation" if "loss" in detail else "answers"
    return "saving" if phase in ("saving", "paused") else "step"


def last_words_of_shortage(log: Sequence[str]) -> str | None:
    """The last line of a log that says memory ran out, near its end; None when none does."""
    return next((line for line in reversed(log[-40:]) if ran_out_of_memory(line)), None)


class KillCounter:
    """How often the kernel ended a process of this control group (or one below it) for want of memory."""

    def __init__(self, files: HostFiles = HostFiles()):  # noqa: B008
        self._counters = tuple(_counters(files))
        self._before = self._read()

    @property
    def counts(self) -> bool:
        """Whether this machine lets its kills be counted."""
        return bool(self._counters)

    def rose(self) -> bool:
        """Whether it did so since this counter was made, or since the last call that said so."""
        before, self._before = self._before, self._read()
        return any(now > then for then, now in zip(before, self._before, strict=True))

    def _read(self) -> tuple[int, ...]:
        return tuple(_oom_kills(path) for path in self._counters)


def _counters(files: HostFiles) -> Iterator[Path]:
    """The files that count kills, of version 2 and of version 1, each of the innermost group that can be seen.

    Inside a container the path may name folders that only the host sees; the mount is then the container's own group.
    """
    try:
        lines = (files.proc / "self" / "cgroup").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        inner = Path(path.lstrip("/"))
        if ".." in inner.parts:
            continue
        if controllers == "":
            mount, name = files.cgroup, "memory.events"
        elif "memory" in controllers.split(","):
            mount, name = files.cgroup / "memory", "memory.oom_control"
        else:
            continue
        places = (mount / part / name for part in (inner, *inner.parents))
        if (found := next((place for place in places if place.is_file()), None)) is not None:
            yield found


def _oom_kills(path: Path) -> int:
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    counts = [line.split()[1] for line in lines if line.startswith("oom_kill ")]
    return int(counts[0]) if counts and counts[0].isdigit() else 0
