"""What may be claimed of a run's seal: a judgement of what its journal holds, the same for the app, the commands and
whoever else tells of it. The words for it are theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from engine.seal.request import Layer, Level
from profiles.problem import printable

Name = Literal["sealed", "in part", "none", "off", "refused", "within", "unproven", "open", "changed"]
"""sealed: every layer holds, and every probe was refused while the listener was reached from outside. in part: the same
of those layers that the machine has; none: it has not one of them. off: a person chose so. refused: every layer was
required, one is missing, and nothing was trained. within: finetui itself was started within a seal, which nobody
looked at. unproven: layers hold, but the trial of them says nothing. open: something within came through to the
listener, or a way out is open though every layer holds. changed: what the kernel says of the worker is not what it was,
or should be."""

BROKEN: tuple[Name, ...] = ("open", "changed")
"""What a person should be called for."""
MOST_NAMED = 3
"""Open ways out, or changes, that a sentence names."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A judgement with the numbers that it rests on."""

    name: Name
    level: Level
    held: tuple[Layer, ...]
    missing: tuple[Mapping[str, Any], ...]
    """The reports of the layers that do not hold, with `why` and `fix`."""
    lacking: tuple[Mapping[str, Any], ...]
    """The reports of the layers that hold in part only, as on an older kernel, with `why` and `fix`."""
    tried: int
    """Ways out that were tried within the seal; 0 where none were."""
    refused: int
    open: tuple[Mapping[str, Any], ...]
    """Those that were not refused: {name, answer}."""
    hits: int
    """How often the listener outside was reached from within."""
    control: bool
    """Whether that listener was reached from outside, so that its silence says something."""
    changed: tuple[str, ...]

    @property
    def fault(self) -> str:
        """What a broken seal let through, or what of it is not as it was, in a few words; empty for any other."""
        if self.name == "changed":
            told = [printable(" ".join(each.split()), 200) for each in self.changed[:MOST_NAMED]]
            unnamed = len(self.changed) - MOST_NAMED
            return "; ".join(told) + (f"; and {unnamed} more" if unnamed > 0 else "")
        if self.name != "open":
            return ""
        parts = []
        if self.hits:
            times = {1: "once", 2: "twice"}.get(self.hits, f"{self.hits:,} times")
            parts.append(f"the listener outside was reached {times}")
        if count := max(len(self.open), self.tried - self.refused):
            names = ", ".join(printable(each.get("name", "?"), 40) for each in self.open[:MOST_NAMED])
            more = f" and {count - MOST_NAMED} more" if count > MOST_NAMED else ""
            ways = "1 way out is open" if count == 1 else f"{count} ways out are open"
            parts.append(f"{ways}: {names}{more}" if names else ways)
        return "; ".join(parts)


def refused_since(standing: Standing, cause: str) -> bool:
    """Whether a run that ended for `cause` was refused another trainer, for a seal that is required, after the one that
    this seal was of."""
    return cause == "unsealed" and standing.name not in ("refused", "unproven", *BROKEN)


def standing_of(seal: Mapping[str, Any], changed: Sequence[str] = ()) -> Standing | None:
    """The standing after a `seal` event with these fields, and what its checks found `changed` since. None where there
    was no such event, as in runs of an older finetui."""
    if not seal:
        return None
    level: Level = seal.get("level") or "best"
    layers: Sequence[Mapping[str, Any]] = seal.get("layers") or ()
    probes: Mapping[str, Any] = seal.get("probes") or {}
    held = tuple(each["layer"] for each in layers if each.get("held"))
    missing = tuple(each for each in layers if not each.get("held"))
    lacking = tuple(each for each in layers if each.get("held") and each.get("why"))
    found = tuple(dict.fromkeys((*(seal.get("changed") or ()), *changed)))
    ways = tuple(probes.get("open") or ())
    tried, refused, hits = (int(probes.get(name) or 0) for name in ("tried", "refused", "hits"))
    control = bool(probes.get("control"))
    name: Name
    if level == "off":
        name = "off"
    elif not layers:
        name = "within"
    elif missing and level == "required":
        name = "refused"
    elif not held:
        name = "none"
    elif found:
        name = "changed"
    elif hits or (not missing and (ways or refused < tried)):
        name = "open"
    elif not (tried and control and seal.get("evidence")):
        name = "unproven"
    else:
        name = "in part" if missing else "sealed"
    return Standing(name, level, held, missing, lacking, tried, refused, ways, hits, control, found)
