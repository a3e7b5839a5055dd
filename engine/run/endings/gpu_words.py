"""How a run ends whose GPU is lost, or whose driver failed."""

from __future__ import annotations

from collections.abc import Sequence

from engine.gpu_words import words_of_gpu
from engine.run.endings.causes import Ending


def gpu_fault(text: str) -> Ending | None:
    """The end of a run whose worker said `text`, when that means that its GPU is lost or its driver failed."""
    said = words_of_gpu(text)
    if said is None:
        return None
    if said.means == "lost":
        return Ending("failed", "device_lost", f"the GPU was lost: {said.line}")
    return Ending("failed", "driver_fault", f"the GPU's driver failed: {said.line}")


def last_words_of_gpu(log: Sequence[str]) -> Ending | None:
    """The same from the last lines of a log: what was said first is the cause of the rest."""
    return next((found for line in log[-40:] if (found := gpu_fault(line)) is not None), None)
