"""Kills a process at the k-th call by which it changes files in a folder, or has that call fail.

A small library (system_calls.c) takes the C library's place for those calls: opening to write, writing, syncing,
renaming, linking, making and removing. It counts over a process and all its children, and needs a C compiler only.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

import pytest

_SOURCE = Path(__file__).with_name("system_calls.c")
_COUNTER_BYTES = 8


@functools.cache
def library() -> Path:
    """The compiled library. Skips the test where nothing can be compiled."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        pytest.skip("no C compiler here: system calls cannot be counted")
    folder = Path(tempfile.mkdtemp(prefix="finetui-faults-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    built = folder / "system_calls.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-o", str(built), str(_SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return built


def environment(
    folder: Path,
    at: int = 0,
    act: Literal["kill", "kill in the middle"] | int = "kill",
    *,
    count_to: Path,
    times: int = 1,
    reads: bool = False,
    log_to: Path | None = None,
) -> dict[str, str]:
    """Variables for a process whose calls on `folder` (which need not exist yet) and on what is in it are to be
    counted, into the file `count_to`.

    At the `at`-th (from 1; 0 for none) the calling process is killed before it, or in the middle of it if it is a
    write; or the call fails with `act`, an error's number, as do the next ones: `times` in all, 0 for all. With `reads`
    opening to read and reading count, too. Each call is written to `log_to`, a line of its name, its path and another,
    with tabs between them. Skips the test where nothing can be compiled.
    """
    if not count_to.exists():
        count_to.write_bytes(bytes(_COUNTER_BYTES))
    ours = [count_to]
    if log_to is not None:
        log_to.touch()
        ours.append(log_to)
    return {
        # What a sealed process counts into has to be shown to it; the library itself is, being in LD_PRELOAD.
        "FINETUI_SEAL_WRITE": os.pathsep.join(
            (*filter(None, (os.environ.get("FINETUI_SEAL_WRITE"),)), *map(str, ours))
        ),
        "LD_PRELOAD": str(library()),
        "FINETUI_FAULT_FOLDER": str(folder.resolve()),
        "FINETUI_FAULT_COUNTER": str(count_to),
        "FINETUI_FAULT_AT": str(at),
        "FINETUI_FAULT_ERRNO": str(act if isinstance(act, int) else 0),
        "FINETUI_FAULT_TORN": str(int(act == "kill in the middle")),
        "FINETUI_FAULT_TIMES": str(times),
        "FINETUI_FAULT_READS": str(int(reads)),
        "FINETUI_FAULT_LOG": str(log_to or ""),
    }


def count_of(count_to: Path) -> int:
    """How many calls were counted into this file so far."""
    return int.from_bytes(count_to.read_bytes(), "little")


def set_count(count_to: Path, calls: int) -> None:
    """Have the processes that count into this file go on from `calls`: a way to begin and to end failures at will."""
    with count_to.open("r+b") as file:
        file.write(calls.to_bytes(_COUNTER_BYTES, "little"))


def logged(log_to: Path) -> list[tuple[str, str, str]]:
    """The calls that were logged, in order: name, path, other path."""
    calls = (line.split("\t") for line in log_to.read_text().splitlines())
    return [(name, path, other) for name, path, other in calls]


def arm_this_process(variables: dict[str, str]) -> None:
    """Count from now on in this process, which was started with the library already; for forked children."""
    os.environ |= variables
    ctypes.CDLL(None).system_calls_arm()
