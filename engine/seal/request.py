"""What the launcher is asked to do."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal, get_args

Level = Literal["required", "best", "off"]
"""required: nothing runs unless every layer holds. best: with the layers that this machine allows, told which are
missing. off: with none."""
Layer = Literal["namespace", "landlock", "seccomp"]
"""namespace: a network of its own without a way out, and only those parts of the file system that it needs.
landlock: the kernel refuses every other file. seccomp: the kernel refuses the calls by which sockets are made."""
Sockets = Literal["none", "loopback"]
"""none: not one socket that can be connected. loopback: those of a loopback that only the sealed processes share, for
several devices that work together; it needs the namespace."""

LEVELS: tuple[Level, ...] = get_args(Level)
LAYERS: tuple[Layer, ...] = get_args(Layer)


@dataclass(frozen=True, slots=True)
class SealRequest:
    """One process to be sealed. Paths are absolute; what lies below a folder belongs to it. What is not there is passed
    over, but for `write`."""

    level: Level
    report: int
    """Descriptor to which the launcher writes its SealReport as one JSON object; it is closed when the process begins,
    so that the other end reads to the end."""
    read: tuple[str, ...] = ()
    """Files and folders that may be read, and run."""
    write: tuple[str, ...] = ()
    """Files and folders that may be read, written, made and removed."""
    devices: tuple[str, ...] = ()
    """Device files that may be read, written and controlled."""
    keep: tuple[int, ...] = ()
    """Descriptors that stay open beside 0, 1 and 2."""
    sockets: Sockets = "none"
    refusals: int | None = None
    """A connected Unix socket over which the kernel's listener for refused sockets is handed out (SCM_RIGHTS), and
    which is closed then; None: they are refused and nobody is told."""
    without: tuple[Layer, ...] = ()
    """Layers that are to be missing as on a kernel that has none, for tests."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))
