"""A checkpoint's folder and its manifest: what it is made of, of which step, under which circumstances.

    {"format": 2, "step": 500, "circumstances": {...}, "files": {"state.json": {"bytes": ..., "sha256": ...}, ...},
     "sha256": the SHA-256 of every byte of this file before the comma in front of this field}

So it vouches for itself. Format 1 had files alone, and no sum of its own; it is read still.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from profiles.bounded_files import read_bytes
from profiles.problem import Problem

FORMAT = 2
MANIFEST = "manifest.json"
TRAINABLE = "trainable.safetensors"
OPTIMIZER = "optimizer.safetensors"
RANDOM = "random.safetensors"
STATE = "state.json"
FILES = (TRAINABLE, OPTIMIZER, RANDOM, STATE)
"""What every checkpoint is made of besides its manifest."""

# Far more than a manifest has, which is kilobytes.
_MOST_BYTES = 1 << 24
_NAME = re.compile(r"step-(\d{6,})")
_SEAL = re.compile(rb'(?P<sealed>.*),\n "sha256": "(?P<sum>[0-9a-f]{64})"\n\}\n', re.DOTALL)


@dataclass(frozen=True)
class Sealed:
    """A file as it was written."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint consists of. `step` is None in format 1."""

    step: int | None
    circumstances: dict[str, str]
    files: dict[str, Sealed]

    def to_bytes(self) -> bytes:
        """The file's contents, in the newest format."""
        fields = {
            "format": FORMAT,
            "step": self.step,
            "circumstances": self.circumstances,
            "files": {name: asdict(sealed) for name, sealed in self.files.items()},
        }
        sealed = json.dumps(fields, indent=1).removesuffix("\n}").encode()
        return sealed + f',\n "sha256": "{_sum(sealed)}"\n}}\n'.encode()


class DamagedError(Exception):
    """A checkpoint, or a file of it, is not as it was saved; the text says what is wrong."""


def checkpoint_path(root: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies, or would lie."""
    return root / f"step-{step:06d}"


def step_of(path: Path) -> int | None:
    """The step of the checkpoint in this folder, by its name; None for anything else."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else None


def list_checkpoints(root: Path) -> list[Path]:
    """Checkpoint folders under `root`, oldest first, damaged ones included."""
    if not root.is_dir():
        return []
    found = [(step, path) for path in root.iterdir() if (step := step_of(path)) is not None]
    return [path for _, path in sorted(found)]


def newest_step(root: Path) -> int | None:
    """The step of the newest checkpoint under `root`, which a worker tries first, be it damaged; None without any."""
    paths = list_checkpoints(root)
    return step_of(paths[-1]) if paths else None


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the checkpoint in `folder`. Raises DamagedError."""
    try:
        # Never waited for, and not read without end: a worker that was taken over may have put anything there.
        content = read_bytes(folder / MANIFEST, _MOST_BYTES)
    except Problem as problem:
        why = "is missing" if not (folder / MANIFEST).exists() else problem.what
        raise DamagedError(f"{MANIFEST} {why}") from None
    try:
        fields = json.loads(content)
        if fields["format"] != 1:
            seal = _SEAL.fullmatch(content)
            if seal is None or seal["sum"].decode() != _sum(seal["sealed"]):
                raise DamagedError(f"{MANIFEST} changed after it was saved")
        if fields["format"] > FORMAT:
            raise DamagedError(f"a newer finetui saved it, in format {fields['format']}")
        return Manifest(
            step=fields.get("step"),
            circumstances=_texts(fields.get("circumstances", {})),
            files={name: Sealed(int(each["bytes"]), str(each["sha256"])) for name, each in fields["files"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DamagedError(f"{MANIFEST} is damaged") from None


def saved_circumstances(folder: Path) -> dict[str, str]:
    """Under which circumstances the checkpoint in `folder` was saved; nothing where it does not say (format 1), or
    cannot be read."""
    try:
        return read_manifest(folder).circumstances
    except DamagedError:
        return {}


def _texts(fields: Mapping[str, str]) -> dict[str, str]:
    return {str(name): str(text) for name, text in fields.items()}


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
