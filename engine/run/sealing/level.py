"""How a run is to be sealed: at its spec's level, or what a person said since when they went on with it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from engine.run.directory import RunDirectory
from engine.run.endings.adjusted import SEAL
from engine.run.telemetry.reading import read_state
from engine.seal.request import LEVELS, Level, Sockets

SOCKETS: Sockets = "none"
"""A run trains on one device, whose worker and data processes need no socket among them."""


def level_of(run: RunDirectory, adjusted: Mapping[str, Any]) -> Level:
    """The level in force, with what was `adjusted`. The spec was checked when the run was made; where it cannot be read
    any more the worker says so, and until then it is sealed as most runs are. Raises nothing."""
    given = adjusted.get(SEAL)
    if given is None:
        # Not through engine.spec, whose libraries the supervisor comes by without.
        try:
            given = tomllib.loads(run.spec_path.read_text(encoding="utf-8"))["privacy"]["seal"]
        except (OSError, ValueError, KeyError, TypeError):
            given = "best"
    return next((level for level in LEVELS if level == given), "best")


def level_now(run: RunDirectory) -> Level:
    """The level in force, by the run's own journal: for its export and its chat. Raises nothing."""
    try:
        adjusted = read_state(run).adjusted
    except OSError:
        adjusted = {}
    return level_of(run, adjusted)


def with_level(run: RunDirectory, adjusted: Mapping[str, Any], level: Level) -> dict[str, Any] | None:
    """The fields of an `adjusted` event that gives the rest of a run the seal's `level`; None where it has that."""
    now = level_of(run, adjusted)
    if level == now:
        return None
    text = f'a person set privacy.seal to "{level}" (was "{now}") for the rest of the run'
    return {"changes": {SEAL: [now, level]}, "text": text}
