"""Measured rates of the device that trains on this machine, and what earlier runs taught about predicted speeds.

A benchmark of some seconds runs in a child process (engine.fit.rates_child), since it needs torch; its result is kept
per device and torch version. Once a run has shown its real speed, `remember_speed` keeps how far a prediction was off.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from engine.fit.cache import read_cached, write_cached
from engine.modules import module_command
from engine.seal.policy.places import computing_places
from engine.seal.sealing import run_sealed
from profiles.geometry import Geometry
from profiles.hardware import Hardware
from profiles.problem import Problem, printable
from profiles.settings import Settings
from profiles.speed import estimate_speed, geometry_key, rates_of

_LOADING_SECONDS = 120.0
"""How long torch may take to load from a cold or distant disk, and the benchmark to run on a busy machine."""
_CHECK = "Check the installation with `finetui doctor`."
# A run is one observation among noise; a correction goes halfway (in ratio) to each new one.
_TRUST = 0.5
# Beyond this a measurement says that something else happened (a suspended machine, a device shared with others).
_LARGEST_FACTOR = 10.0


def cached_rates(hardware: Hardware) -> dict[str, Any] | None:
    """What is kept about the device that trains on `hardware`: measured rates, corrections from runs, or both.

    Instant; None when nothing is known. It is made for `profiles.speed.rates_of(hardware, cached_rates(hardware))`.
    """
    return read_cached(_name(hardware))


def is_measured(hardware: Hardware) -> bool:
    """Whether the rates of the device that trains on `hardware` were measured, not only corrected by runs."""
    return "matmul_flops" in (cached_rates(hardware) or {})


def measure_rates(hardware: Hardware, timeout_seconds: float = _LOADING_SECONDS) -> dict[str, Any]:
    """Measure the device of this machine, which `hardware` describes, and keep the result: some seconds.

    What runs taught before is forgotten, since it was about other rates. A benchmark that other programs slowed down
    does not replace one that had the machine for itself, which is then what is returned. Raises Problem when it fails.
    """
    kind = "cuda" if hardware.gpus else "cpu"
    where = f"benchmark of {device_name(hardware)}"
    try:
        child = run_sealed(
            module_command("engine.fit.rates_child", kind), computing_places(), timeout_seconds=timeout_seconds
        )
    except subprocess.TimeoutExpired:
        raise Problem(
            where, f"did not end within {timeout_seconds:.0f} s", "Try again when the machine is less busy."
        ) from None
    except OSError as error:
        raise Problem(
            where, f"does not start: {error.strerror}", "Check the installation with `finetui doctor`."
        ) from None
    try:
        found = json.loads(child.stdout)
        assert isinstance(found["matmul_flops"]["fp32"], float)
    except (ValueError, KeyError, TypeError, AssertionError):
        last = child.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit status {child.returncode}"]
        raise Problem(where, f"failed: {printable(last[0], 200)}", _CHECK) from None
    before = cached_rates(hardware)
    if found.get("busy") and before and before.get("busy") is False:
        return before
    write_cached(_name(hardware), found)
    return found


def remember_speed(
    hardware: Hardware,
    geometry: Geometry,
    settings: Settings,
    measured_tokens_per_second: float,
    target_share: float = 1.0,
) -> None:
    """Keep how fast a run under `settings` really was, so that later predictions for its method and model are closer.

    `measured_tokens_per_second` is over the run's steps alone: without loading, measuring and saving, and without the
    first steps. `target_share` is the share of tokens that carried loss. A measurement that is no positive number or
    is ten times off is passed over.
    """
    kept = cached_rates(hardware) or {}
    known = {name: value for name, value in kept.items() if name != "corrections"}
    predicted = estimate_speed(geometry, settings, rates_of(hardware, known), target_share).tokens_per_second
    factor = measured_tokens_per_second / predicted
    if not 1 / _LARGEST_FACTOR < factor < _LARGEST_FACTOR:  # not a number fails too
        return
    corrections = kept.get("corrections")
    corrections = dict(corrections) if isinstance(corrections, dict) else {}
    for key in (settings.method, f"{settings.method} {geometry_key(geometry)}"):
        before = corrections.get(key)
        if isinstance(before, int | float) and 0 < before < math.inf:
            corrections[key] = before ** (1 - _TRUST) * factor**_TRUST
        else:
            corrections[key] = factor
    write_cached(_name(hardware), known | {"corrections": corrections})


def device_name(hardware: Hardware) -> str:
    """The device that trains on `hardware`, as its rates are kept: "NVIDIA A100-SXM4-80GB" or "AMD EPYC, 4 cores"."""
    if hardware.gpus:
        return hardware.gpus[0].name
    return f"{hardware.cpu.name}, {hardware.cpu.physical_cores} cores"


def _name(hardware: Hardware) -> str:
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "none"
    return "rates/" + re.sub(r"[^a-z0-9.]+", "-", f"{device_name(hardware)} torch {torch}".casefold())
