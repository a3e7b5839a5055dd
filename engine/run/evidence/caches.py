"""What finetui keeps of a run's data outside of the run's folder, and which of it no other run uses."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.home import cache_root
from engine.run.directory import RunDirectory
from engine.run.waiting.claims import is_live
from profiles.bounded_files import read_bytes
from profiles.problem import Problem

# As for the cache's own clean-up.
_IN_USE_SECONDS = 3600
# A place in a file for each chunk of it.
_CUT_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class Caches:
    """`shards`: prepared data in the cache under the names of the run's own. `others`: how they were cut, and data that
    was piped in. `shared`: how many of either stay, since other runs use them."""

    shards: frozenset[Path]
    others: frozenset[Path]
    shared: int

    @property
    def files(self) -> list[Path]:
        """What is to go."""
        return sorted(self.shards | self.others)


def caches_of(run: RunDirectory, others: Sequence[RunDirectory]) -> Caches:
    """What of the caches is this run's alone, `others` being all other runs of this home. Raises OSError."""
    root, shards, shared = cache_root() / "prepared", set(), 0
    # Another run that is just preparing its data may be about to take a name of its own for what it found there.
    taken_since = time.time() - _IN_USE_SECONDS if any(map(is_live, others)) else math.inf
    for own in sorted(run.data.rglob("*.safetensors")) if run.data.is_dir() else ():
        place = own.relative_to(run.data)
        cached = root / place
        if (status := file_status(cached)) is None:
            continue
        # The cache's name and the run's are one file, but on two disks; any further name is that of another run,
        # be it one of another home.
        known = 2 if status.st_ino == own.stat().st_ino else 1
        in_use = status.st_nlink > known or status.st_mtime > taken_since
        if in_use or any((other.data / place).exists() for other in others):
            shared += 1
        else:
            shards.add(cached)
    sources = set(_sources(run))
    elsewhere = {path for other in others for path in _sources(other)}
    mine = sources - elsewhere
    files = {path for path in mine if path.parent == cache_root() / "stdin" and path.is_file()}
    cuts = list(_cuts(root, sources))
    files |= {cut for cut, source in cuts if source in mine}
    shared += sum(1 for _, source in cuts if source not in mine)
    shared += sum(1 for path in sources - mine if path.parent == cache_root() / "stdin" and path.is_file())
    return Caches(frozenset(shards), frozenset(files), shared)


def file_status(path: Path) -> os.stat_result | None:
    """Of a file of the caches; None where there is none, or none any more: other runs tidy them up. Raises OSError."""
    with suppress(FileNotFoundError):
        return path.stat() if path.is_file() else None
    return None


def _sources(run: RunDirectory) -> list[Path]:
    """The data's files by the spec; none where that is damaged."""
    with suppress(Problem):
        return [section.path for section in run.spec().data.sources]
    return []


def _cuts(root: Path, sources: set[Path]) -> Iterator[tuple[Path, Path]]:
    """The cache's notes on how files of `sources` were cut, each with the file."""
    for path in sorted((root / "cut").glob("*.json")):
        # Trainers may write there, and one that was taken over anything.
        with suppress(Problem, OSError, ValueError, KeyError, TypeError, RecursionError):
            source = Path(json.loads(read_bytes(path, _CUT_BYTES))["cut"]["path"])
            if source in sources:
                yield path, source
