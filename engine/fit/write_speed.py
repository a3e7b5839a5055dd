"""How fast the disk takes what a run saves: measured when asked to, kept per file system."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from engine.fit.cache import read_cached, write_cached
from profiles.hardware import Disk, Hardware
from profiles.machine.host import existing_part
from profiles.machine.host import measure_write_speed as measured_bytes_per_second
from profiles.problem import Problem


def with_cached_write_speed(hardware: Hardware) -> Hardware:
    """`hardware` with the write speed of its disk, where it was measured before."""
    kept = (read_cached(_name(hardware.disk.path)) or {}).get("write_bytes_per_second")
    if not isinstance(kept, float) or kept <= 0:
        return hardware
    return replace(hardware, disk=replace(hardware.disk, write_bytes_per_second=kept))


def measure_write_speed(disk: Disk) -> float:
    """Measure and keep the bytes per second that reach `disk`; under a second but for slow disks.

    Raises Problem where nothing can be written.
    """
    try:
        found = measured_bytes_per_second(existing_part(disk.path))
    except OSError as error:
        raise Problem(
            str(disk.path), f"cannot be written to: {error.strerror}", "Make room there, or set FINETUI_HOME."
        ) from None
    write_cached(_name(disk.path), {"write_bytes_per_second": found})
    return found


def _name(path: Path) -> str:
    mount = existing_part(path)
    while not mount.is_mount() and mount != mount.parent:
        mount = mount.parent
    return "disks/" + (re.sub(r"[^a-z0-9]+", "-", str(mount).casefold()).strip("-") or "root")
