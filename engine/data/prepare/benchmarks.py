"""Benchmark files whose rows must not be learnt: an index over them that the crew's processes share."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.data.rows import shown


@dataclass(frozen=True, slots=True)
class BenchmarkPlaces:
    """Where the rows of all benchmark files stand, by their position among all."""

    files: tuple[tuple[str, int], ...] = ()
    """Each with the position of its first row."""
    lines: tuple[int, ...] = ()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> BenchmarkPlaces:
        """What `asdict` wrote, from JSON."""
        return cls(tuple((path, first) for path, first in values["files"]), tuple(values["lines"]))

    def place(self, row: int) -> str:
        file = self.files[bisect_right(self.files, row, key=lambda each: each[1]) - 1]
        return f"{shown(Path(file[0]))}, line {self.lines[row]:,}"


@dataclass(frozen=True, slots=True)
class Benchmarks:
    folder: Path | None = None
    """Of the index; None where no benchmarks are given."""
    sha256: str = ""
    places: BenchmarkPlaces = BenchmarkPlaces()


def read_benchmarks(paths: Sequence[Path], root: Path) -> Benchmarks:
    """The index of the benchmark files, made below `root` if it is not there yet. Raises Problem and OSError."""
    if not paths:
        return Benchmarks()
    from engine.data.quality.benchmarks import benchmark_texts
    from engine.data.quality.leaks import LeakIndex

    texts: list[str] = []
    files: list[tuple[str, int]] = []
    lines: list[int] = []
    for path in paths:
        files.append((str(path), len(texts)))
        its_texts, its_lines = benchmark_texts(path)
        texts += its_texts
        lines += its_lines
    sha256 = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
    folder = root / "benchmarks" / sha256[:32]
    if not _is_whole(folder):
        making = folder.with_name(f".{secrets.token_hex(8)}")
        making.mkdir(parents=True)
        LeakIndex.of(texts).save(making)
        try:
            making.rename(folder)  # onto nothing, or onto an empty folder; anything else is refused by the kernel
        except OSError:
            if _is_whole(folder):  # another process was faster, and reads it perhaps
                shutil.rmtree(making)
            else:
                shutil.rmtree(folder, ignore_errors=True)
                making.rename(folder)
    return Benchmarks(folder, sha256, BenchmarkPlaces(tuple(files), tuple(lines)))


def _is_whole(folder: Path) -> bool:
    """Whether the clean-up, which removes what was not used for longest, took nothing of the index, and takes nothing
    of it soon."""
    from engine.data.quality.leaks import LeakIndex

    try:
        LeakIndex.load(folder)
        for path in folder.iterdir():
            os.utime(path)
    except (OSError, ValueError, EOFError):
        return False
    return True
