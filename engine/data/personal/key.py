"""The secret that pseudonyms are made with: one for each person's machine, so that equal values get equal pseudonyms
in every run, and nobody without it can find out whose they were."""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

from engine.data.rows import shown
from engine.home import home
from profiles.problem import Problem

_KEY_BYTES = 32


def key_path() -> Path:
    return home() / "pseudonyms.key"


def pseudonym_key() -> bytes:
    """The key, made when it is first asked for. Raises Problem when it cannot be kept, or is damaged."""
    path = key_path()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _make(path)
        key = path.read_bytes()
    except OSError as error:
        raise Problem(
            shown(path), f"cannot be read or written: {error.strerror}", "Free the path, or set FINETUI_HOME."
        ) from None
    if len(key) != _KEY_BYTES:
        raise Problem(
            shown(path),
            f"has {len(key)} bytes where a key has {_KEY_BYTES}",
            "Put its backup there, or remove it: a new one is made, and pseudonyms differ from those of earlier runs.",
        )
    return key


def _make(path: Path) -> None:
    """Whole or not at all, readable for its owner alone; when two processes make one at once, the first stays."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".pseudonyms-")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()
