"""Where finetui keeps what it keeps: its home, which is a user's data, and its cache, which may be lost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from profiles.problem import Problem

CACHE_VARIABLE = "FINETUI_CACHE"
"""An environment variable with the cache's folder. Sealed processes have it, since for them XDG_CACHE_HOME, by which
the platform's would be found, is another."""


def home() -> Path:
    """The folder of everything finetui keeps: FINETUI_HOME, else the platform's place for a user's data."""
    if given := os.environ.get("FINETUI_HOME"):
        return Path(given).expanduser().absolute()
    return _of_platform("data")


def cache_root() -> Path:
    """The folder of the cache: FINETUI_CACHE, else under FINETUI_HOME where that is set, else the platform's."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given).expanduser().absolute()
    if os.environ.get("FINETUI_HOME"):
        return home() / "cache"
    return _of_platform("cache")


def _of_platform(kind: Literal["data", "cache"]) -> Path:
    """The platform's folder for what a user keeps, or may lose, of finetui. Raises Problem for a user who has
    no home folder, as in a container that was started with a number for a user."""
    import platformdirs  # here, since FINETUI_HOME makes it needless

    try:
        find = platformdirs.user_data_path if kind == "data" else platformdirs.user_cache_path
        return find("finetui", appauthor=False)
    except RuntimeError:
        raise Problem(
            "the home folder",
            "is not known: HOME is not set, and this system has no entry for this user",
            "Set FINETUI_HOME to a folder of your own.",
        ) from None
