"""What a waiting run sees when it looks around: its memory, its place, who is on its device; and that in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.run.sizes import size_text
from engine.run.waiting.claims import Claim
from engine.run.waiting.predecessor import called
from engine.run.waiting.room import Room


@dataclass(frozen=True, slots=True)
class Look:
    """A run that waits with `claim` found `room`, stands at `place` from 1 on behind `ahead` that could start before
    it, and saw the runs called `training` on its device."""

    claim: Claim
    room: Room
    place: int
    ahead: int
    training: tuple[str, ...]

    @property
    def its_turn(self) -> bool:
        """Whether nothing is in the way any more."""
        return not (self.claim.after or self.ahead or self._in_the_way) and self._has_device and self.room.fits

    def news(self, trouble: str = "") -> dict[str, Any]:
        """The fields of a `queued` event; `trouble` is what kept the run from looking, where something did."""
        why = trouble or self._why()
        count = 0 if self.claim.after else self.ahead  # one that waits for another may well stand behind it
        before = f"; {count} {'run waits' if count == 1 else 'runs wait'} before it" if count else ""
        return {
            **self.room.as_dict(),
            "device": self.claim.device,
            "place": self.place,
            "ahead": self.ahead,
            "after": self.claim.after,
            "others": list(self._in_the_way),
            "trouble": trouble,
            "why": why,
            "text": why + before,
        }

    @property
    def _has_device(self) -> bool:
        """Whether the machine still shows the device that the run waits for; a driver may lose a GPU."""
        return self.room.device == self.claim.device

    @property
    def _in_the_way(self) -> tuple[str, ...]:
        return () if self.claim.beside else self.training

    def _why(self) -> str:
        """What the run waits for, but for those before it."""
        device = self.claim.device
        if self.claim.after:
            return (
                f"waits for {called(self.claim.after)} to end, then for {size_text(self.room.needed_bytes)} of {device}"
            )
        if not self._has_device:
            return f"needs {device}, which this machine does not show now"
        if self._in_the_way:
            names = ", ".join(map(called, self._in_the_way))
            return f"needs {device}, where {names} {'trains' if len(self._in_the_way) == 1 else 'train'}"
        return self.room.sentence() if not self.room.fits else f"needs {device} when its turn comes"
