"""What the launcher tells of a seal. The standard library alone, since the launcher writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from engine.seal.request import Layer, Level


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One layer: whether it holds, and what the kernel said where it does not."""

    layer: Layer
    held: bool
    detail: Mapping[str, Any] = field(default_factory=dict)
    """namespace: masked (["/"]: of the machine's files only those in `shown` are there; []: all of them, see `why`),
    shown [path], users (whether a user namespace is part of it). landlock: abi (the kernel's version of it), rules (how
    many paths were allowed), closed [text] (what that version refuses). seccomp: sockets ("none" or "loopback", as they
    hold), instructions and sha256 of the filter, told (whether the kernel gave a listener for refused sockets). Of a
    seal that was inherited, none."""
    why: str = ""
    """Why it does not hold, or holds in part only, as the end of a sentence."""
    fix: str = ""
    """What an administrator may do about that, in one line."""
    milliseconds: float = 0.0


class Layered:
    """What has reports of layers."""

    __slots__ = ()
    layers: tuple[LayerReport, ...]

    @property
    def held(self) -> tuple[Layer, ...]:
        return tuple(each.layer for each in self.layers if each.held)

    @property
    def missing(self) -> tuple[LayerReport, ...]:
        return tuple(each for each in self.layers if not each.held)


@dataclass(frozen=True, slots=True)
class SealReport(Layered):
    """What holds for a process that was started."""

    level: Level
    layers: tuple[LayerReport, ...] = ()
    """All three, in the order of LAYERS; none where the level is off."""
    refused: str = ""
    """Why nothing was started, where the level was required and a layer is missing."""
    inherited: bool = False
    """Whether the process was started from within a seal, which holds for it too."""
    milliseconds: float = 0.0
    """What the sealing took, without the start of the launcher."""

    def as_dict(self) -> dict[str, Any]:
        """JSON types, for journals and the launcher's pipe."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SealReport:
        """Raises KeyError, TypeError for what is none."""
        layers = tuple(LayerReport(**each) for each in values["layers"])
        return cls(**{**values, "layers": layers})
