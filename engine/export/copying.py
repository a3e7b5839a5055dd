"""Copying a run's files with progress. No torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

_EXPORTED = re.compile(
    r"(?!\.)[\w .+-]{1,150}\.(?:safetensors|json|txt|model|model\.v\d|jinja|tiktoken|bpe)|README\.md", re.ASCII
)
PIECE_BYTES = 16 << 20
TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "spiece.model",
    "sentencepiece*.model",
    "chat_template*",
)

Progress = Callable[[str, int, int], None]


def files_in(folder: Path, patterns: Iterable[str] = ("*",)) -> list[Path]:
    """The regular files directly in `folder` that match a pattern, each once, by name."""
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def is_exported(name: str) -> bool:
    """Whether a file of that name is a part of an export: weights, settings, vocabulary, card; no code, and nothing
    that is hidden."""
    return _EXPORTED.fullmatch(name) is not None


def total_bytes(files: Iterable[Path]) -> int:
    """What `files` take together."""
    return sum(path.stat().st_size for path in files)


def copy_files(files: list[Path], into: Path, progress: Progress) -> None:
    """Copy what is exported of `files` into the folder `into`; `progress` gets what is copied and the bytes done of how
    many."""
    files = [path for path in files if is_exported(path.name)]
    done, total = 0, total_bytes(files)
    for path in files:
        with path.open("rb") as source, (into / path.name).open("wb") as copy:
            while piece := source.read(PIECE_BYTES):
                copy.write(piece)
                done += len(piece)
                progress(f"copying {path.name}", done, total)
