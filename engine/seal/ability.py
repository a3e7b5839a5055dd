"""What this machine can hold of a seal, found out by holding it: a process that does nothing is sealed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from engine.seal.policy.places import Places
from engine.seal.report import Layered, LayerReport, SealReport
from engine.seal.request import LAYERS
from engine.seal.sealing import SealRefused, start_sealed

_SYSTEMS = {"darwin": "macOS", "win32": "Windows"}
_FIX = "Train on Linux where no byte may leave."


@dataclass(frozen=True, slots=True)
class Ability(Layered):
    """All layers in the order of LAYERS, as they held for a process that was started just now."""

    layers: tuple[LayerReport, ...]


def ability(system: str = sys.platform, try_it: Callable[[], SealReport] | None = None) -> Ability:
    """On an operating system that Python calls `system`, where `try_it` starts a sealed process. Takes some 30 ms, and
    raises nothing: what goes wrong is why a layer does not hold."""
    if system != "linux":
        name = _SYSTEMS.get(system, system)
        return _nothing(f"{name} has nothing like it: a seal is made of what Linux offers", _FIX)
    try:
        report = (try_it or _sealed_for_nothing)()
    except SealRefused as refused:
        return _nothing(refused.what, refused.fix)
    except OSError as error:
        return _nothing(f"a process to try it with could not be started: {error.strerror}", "")
    if report.inherited and not report.layers:
        return _nothing("finetui was started within a seal, to which nothing can be added", "")
    return Ability(report.layers)


def _sealed_for_nothing() -> SealReport:
    process, report = start_sealed(
        ["true"],
        Places(),
        "best",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    process.wait()
    return report


def _nothing(why: str, fix: str) -> Ability:
    return Ability(tuple(LayerReport(layer, held=False, why=why, fix=fix) for layer in LAYERS))
