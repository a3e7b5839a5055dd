"""A training step replayed without weights, in a child process: the second opinion on profiles.memory's formulas.

The replay runs the real model and the engine's own step on tensors that have shapes and no memory, and counts what
lives (engine.fit.fake_step). It takes seconds, most of them imports, so what was found is kept: it depends on nothing
but the config, the settings, the libraries and our code.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from engine.fit.cache import read_cached, write_cached
from engine.modules import module_command, module_environment
from engine.seal.policy.places import passing_places
from engine.seal.sealing import start_sealed
from profiles.geometry import Geometry
from profiles.problem import Problem, printable
from profiles.settings import Settings

_LIBRARIES = ("torch", "transformers", "peft")
# Where the code of a step lives; a change there makes what is kept worthless.
_STEP_PACKAGES = ("fit", "methods", "objectives", "train")
_POLL_SECONDS = 0.05
# A line is a few hundred bytes; of a child gone wild no more than this is read.
_OUTPUT_LIMIT_BYTES = 1 << 20
_ADVICE = "The estimate by formula stands without it."


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replayed step's tensors take on their device."""

    allocated_bytes: int
    """At the step's highest point: to be held against MemoryEstimate.allocated_bytes."""
    phases: Mapping[str, int]
    """Highest bytes of "forward", "loss", "first backward" (the last layer's), "backward" (the layers between), "last
    backward" (the first layer that learns), "embedding's backward" and "optimizer"; those there are."""
    seconds: float
    """What the replay took, without starting the child."""


def cached_replay(geometry: Geometry, settings: Settings) -> Replayed | None:
    """What an earlier replay found; at once, None when there was none."""
    return _replayed(read_cached(_key(geometry, settings)))


def replay(
    geometry: Geometry,
    settings: Settings,
    *,
    timeout_seconds: float = 120.0,
    cancelled: threading.Event | None = None,
) -> Replayed | None:
    """The bytes of one optimizer step's tensors; from the cache where they are known.

    None when `cancelled` was set meanwhile: the child is killed. Raises Problem when the config makes no model, or the
    child fails or takes too long.
    """
    return replay_many(geometry, (settings,), timeout_seconds=timeout_seconds, cancelled=cancelled)[0]


def replay_many(
    geometry: Geometry,
    many: Sequence[Settings],
    *,
    timeout_seconds: float = 300.0,
    cancelled: threading.Event | None = None,
) -> list[Replayed | None]:
    """As `replay` for each settings in turn, in one child, which imports once."""
    keys = [_key(geometry, settings) for settings in many]
    known = {key: _replayed(read_cached(key)) for key in keys}
    missing = {key: settings for key, settings in zip(keys, many, strict=True) if known[key] is None}
    if missing:
        request = {"config": dict(geometry.config.values), "settings": [asdict(each) for each in missing.values()]}
        lines = _run_child({**request, "every_layer": False}, timeout_seconds, cancelled)
        for key, line in zip(missing, lines, strict=False):
            if "problem" in line:
                problem = line["problem"]
                raise Problem(f"{geometry.path}, {problem['where']}", problem["what"], _ADVICE)
            write_cached(key, line)
            known[key] = _replayed(line)
    return [known[key] for key in keys]


def _run_child(
    request: dict[str, Any], timeout_seconds: float, cancelled: threading.Event | None
) -> list[dict[str, Any]]:
    """The child's answers, fewer than asked for when it was cancelled. Raises Problem when it fails or takes long."""
    with (
        tempfile.TemporaryFile() as asked,
        tempfile.TemporaryFile() as answer,
        tempfile.TemporaryFile() as errors,
        passing_places() as places,
    ):
        asked.write(json.dumps(request).encode())
        asked.seek(0)
        child, _ = start_sealed(
            module_command("engine.fit.replay_child"),
            places,
            "best",
            stdin=asked,
            stdout=answer,
            stderr=errors,
            env=_environment(),
            start_new_session=True,
        )
        try:
            ended = _wait(child, timeout_seconds, cancelled)
        finally:
            child.kill()
            child.wait()
        if not ended:
            return _answers(answer)
        if child.returncode != 0:
            last = _tail(errors) or f"exit status {child.returncode}"
            raise Problem("replay", f"failed: {printable(last, 200)}", _ADVICE)
        return _answers(answer)


def _environment() -> dict[str, str]:
    """One thread: a replay computes nothing, and the run beside it does."""
    return {**module_environment(), "OMP_NUM_THREADS": "1"}


def _wait(child: subprocess.Popen[bytes], timeout_seconds: float, cancelled: threading.Event | None) -> bool:
    """Whether the child came to its end, False when cancelled. Raises Problem when it takes too long."""
    end = time.monotonic() + timeout_seconds
    while child.poll() is None:
        if cancelled is not None and cancelled.is_set():
            return False
        if time.monotonic() > end:
            raise Problem("replay", f"took longer than {timeout_seconds:.0f} seconds and was stopped", _ADVICE)
        time.sleep(_POLL_SECONDS)
    return True


def _answers(file: BinaryIO) -> list[dict[str, Any]]:
    file.seek(0)
    lines = file.read(_OUTPUT_LIMIT_BYTES).split(b"\n")
    return [json.loads(line) for line in lines[:-1]]  # what follows the last line break is empty or was cut off


def _tail(file: BinaryIO) -> str:
    """The last line of a file that may be long."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 4096))
    lines = file.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def _replayed(told: dict[str, Any] | None) -> Replayed | None:
    """What a child told, perhaps long ago; None for nothing, and for what no child tells."""
    if told is None:
        return None
    try:
        return Replayed(max(told["phases"].values()), told["phases"], told["seconds"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _key(geometry: Geometry, settings: Settings) -> str:
    # What a step does not depend on; and from the second micro-batch on all are alike.
    alike = replace(settings, answers=0, max_new_tokens=0, gradient_accumulation=min(2, settings.gradient_accumulation))
    told = json.dumps([dict(geometry.config.values), asdict(alike), _versions()], sort_keys=True, default=str)
    return f"replay/{hashlib.sha256(told.encode()).hexdigest()[:32]}"


@lru_cache(maxsize=1)
def _versions() -> tuple[str, ...]:
    """The libraries' versions and a digest of our own code that makes up a step."""
    engine = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for package in _STEP_PACKAGES:
        for file in sorted((engine / package).glob("*.py")):
            digest.update(file.read_bytes())
    return (*(importlib.metadata.version(name) for name in _LIBRARIES), digest.hexdigest())
