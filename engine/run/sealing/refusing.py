"""A run that is to be sealed and cannot be: how it ends, in words, and nothing is trained."""

from __future__ import annotations

import shutil
import subprocess

from engine.run.directory import RunDirectory
from engine.run.endings.causes import Ending
from engine.run.sealing.level import SOCKETS
from engine.seal.policy.places import Places
from engine.seal.request import Level
from engine.seal.sealing import SealRefused, start_sealed
from profiles.problem import Problem


def refused_at_once(run: RunDirectory, level: Level) -> Ending | None:
    """The end of a run whose seal is required where this machine lacks a layer, known within some 40 ms so that whoever
    starts it hears of it; None for any other. What the layers keep out is tried later."""
    nothing = shutil.which("true")
    if level != "required" or nothing is None:
        return None
    try:
        process, _ = start_sealed(
            [nothing],
            Places(),
            level,
            sockets=SOCKETS,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except SealRefused as refused:
        return ending_of_refusal(run, refused)
    except OSError:  # the worker's start will say it
        return None
    process.wait()
    return None


def ending_of_refusal(run: RunDirectory, refused: Problem) -> Ending:
    """How a run ends whose seal was `refused`, with what an administrator may do."""
    return unsealed(run, f"{refused.where} {refused.what}", refused.fix)


def unsealed(run: RunDirectory, why: str, fix: str = "") -> Ending:
    """`fix`: what makes the seal hold, where that is known; without, the cause's usual remedy will do."""
    without = f"Or train with the layers that hold here: `finetui resume {run.name} --seal best`."
    return Ending("failed", "unsealed", why, f"{fix} {without}" if fix else "")
