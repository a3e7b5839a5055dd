"""A control group with a memory limit of the kernel's, for tests; where this user may make none there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_MOUNT = Path("/sys/fs/cgroup")


@contextmanager
def starting_in_a_group_of(limit_bytes: int) -> Iterator[Path]:
    """What is started within the block may hold `limit_bytes` together; the test's own process stays as it is.

    Gives the group's folder, which goes when its processes have ended; skips the test where none can be made."""
    for parent, limit in _own_groups():
        group = parent / f"finetui-test-{os.getpid()}"
        try:
            group.mkdir()
            (group / limit).write_text(str(limit_bytes))
            (group / "cgroup.procs").write_text(str(os.getpid()))
        except OSError:
            if group.is_dir():
                group.rmdir()
            continue
        try:
            yield group
        finally:
            (parent / "cgroup.procs").write_text(str(os.getpid()))
        return
    pytest.skip("no control group of memory can be made here")


def _own_groups() -> Iterator[tuple[Path, str]]:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield _MOUNT / path.lstrip("/"), "memory.max"
        elif "memory" in controllers.split(","):
            yield _MOUNT / "memory" / path.lstrip("/"), "memory.limit_in_bytes"
