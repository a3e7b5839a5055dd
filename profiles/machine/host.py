"""The host's CPU, RAM and disk, as this process may use them: within its CPU affinity and control groups."""

from __future__ import annotations

import math
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from profiles.machine.kernel import require_kernel
from profiles.problem import printable

# What the kernel calls native bfloat16 matrix work: x86's AVX-512 and AMX, and Arm's BF16 extension.
_BF16_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16", "svebf16"})


@dataclass(frozen=True, slots=True)
class Cpu:
    """`physical_cores` and `logical_cores` are those this process may use."""

    name: str
    physical_cores: int
    logical_cores: int
    native_bf16: bool


@dataclass(frozen=True, slots=True)
class Ram:
    """The machine's memory, or its control group's where that is less."""

    total_bytes: int
    available_bytes: int

    @property
    def used_bytes(self) -> int:
        return self.total_bytes - self.available_bytes


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system that holds `path`; `free_bytes` is what an ordinary user may still write."""

    path: Path
    free_bytes: int
    total_bytes: int
    write_bytes_per_second: float | None = None
    """As `measure_write_speed` found it; None when it was not measured."""


@dataclass(frozen=True, slots=True)
class HostFiles:
    """Where the kernel describes the host; tests put their own folders here."""

    proc: Path = Path("/proc")
    cgroup: Path = Path("/sys/fs/cgroup")
    cpus: Path = Path("/sys/devices/system/cpu")


def read_cpu(files: HostFiles) -> Cpu:
    fields = _first_processor(files.proc / "cpuinfo")
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    logical = min(affinity or 1, _cpu_quota(files) or math.inf)
    threads_per_core = (psutil.cpu_count() or 1) / (psutil.cpu_count(logical=False) or psutil.cpu_count() or 1)
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return Cpu(
        name=printable(fields.get("model name") or platform.processor() or platform.machine()),
        physical_cores=max(1, round(logical / threads_per_core)),
        logical_cores=int(logical),
        native_bf16=not _BF16_CPU_FLAGS.isdisjoint(flags),
    )


def read_ram(files: HostFiles) -> Ram:
    """Raises Problem where the kernel does not tell."""
    try:
        memory = psutil.virtual_memory()
    except OSError:
        require_kernel()
        raise
    total, available = memory.total, memory.available
    for limit, used in _memory_limits(files):
        if limit < memory.total:  # an unlimited version 1 group says 2^63 rounded down to a page
            total, available = min(total, limit), min(available, max(0, limit - used))
    return Ram(total, available)


def read_disk(path: Path) -> Disk:
    """The file system that `path` lies on, or will lie on once its missing folders exist. Raises OSError."""
    usage = shutil.disk_usage(existing_part(path))
    return Disk(path, usage.free, usage.total)


def existing_part(path: Path) -> Path:
    """`path` itself, or the innermost folder of it that exists."""
    existing = path.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    return existing


def measure_write_speed(path: Path, size_bytes: int = 64 << 20) -> float:
    """Bytes per second that reach the disk under the folder `path`, from one file of `size_bytes` written and synced.

    Takes a tenth of a second on a fast disk and some seconds on a slow one; the file is gone afterwards. Raises OSError
    where nothing can be written or the disk is full.
    """
    block = os.urandom(1 << 20)  # not zeros, which some file systems and drives do not write at all
    with tempfile.TemporaryFile(dir=path) as file:
        started = time.perf_counter()
        for _ in range(max(1, size_bytes // len(block))):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return file.tell() / (time.perf_counter() - started)


def _first_processor(cpuinfo: Path) -> dict[str, str]:
    try:
        block = cpuinfo.read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
    except OSError:  # not Linux
        return {}
    pairs = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _memory_limits(files: HostFiles) -> Iterator[tuple[int, int]]:
    """(limit, used without file cache) in bytes of each memory control group this process is in."""
    for group in _groups(files, "", files.cgroup):
        limit, used = _number(group / "memory.max"), _number(group / "memory.current")
        if limit is not None and used is not None:
            yield limit, used - _statistic(group / "memory.stat", "inactive_file")
    for group in _groups(files, "memory", files.cgroup / "memory"):
        limit, used = _number(group / "memory.limit_in_bytes"), _number(group / "memory.usage_in_bytes")
        if limit is not None and used is not None:
            yield limit, used - _statistic(group / "memory.stat", "total_inactive_file")


def _cpu_quota(files: HostFiles) -> int | None:
    """Whole cores' worth of time the control groups allow, at least one; None without a limit."""
    allowed = []
    for group in _groups(files, "", files.cgroup):
        quota, _, period = _text(group / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):
            allowed.append(int(quota) / int(period))
    for group in _groups(files, "cpu", files.cgroup / "cpu"):
        quota_us, period_us = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
        if quota_us is not None and period_us:
            allowed.append(quota_us / period_us)
    return max(1, math.floor(min(allowed))) if allowed else None


def _groups(files: HostFiles, controller: str, mount: Path) -> Iterator[Path]:
    """This process's control group and its parents up to `mount`, innermost first.

    `controller` is "" for version 2. Inside a container the path may name folders that only the host sees;
    those have no files, and the mount itself is then the container's own group.
    """
    for line in _text(files.proc / "self" / "cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controller in controllers.split(",") and path.startswith("/") and ".." not in path:
            inner = Path(path.lstrip("/"))
            yield from (mount / part for part in (inner, *inner.parents))
            return


def _number(path: Path) -> int | None:
    """The non-negative number in a file; None for "max", for -1 (no quota) and when there is no such file."""
    text = _text(path)
    return int(text) if text.isdigit() else None


def _statistic(path: Path, key: str) -> int:
    for line in _text(path).splitlines():
        name, _, value = line.partition(" ")
        if name == key and value.isdigit():
            return int(value)
    return 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # this kind of control group is not mounted here, or not for us to read
        return ""
