"""The files of a base model by their contents: SHA-256 of weights, config and tokenizer, each file read once."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from engine.fit.cache import read_cached, write_cached
from profiles.bounded_files import read_json
from profiles.problem import Problem
from profiles.shapes.model_folder import INDEX_LIMIT_BYTES

_INDEX = "model.safetensors.index.json"
_CONFIG = "config.json"
# All that transformers makes a tokenizer from.
_TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "merges.txt"),
    *("chat_template.jinja", "chat_template.json"),
)


_BLOCK_BYTES = 1 << 20
_LOOK_SECONDS = 0.25

# The kernel's clock for times of change goes on in steps of some milliseconds, that of a file server up to seconds.
_SETTLED_SECONDS = 2.0


def base_circumstances(model: Path, read: Callable[[int], None] = lambda count: None) -> dict[str, str]:
    """Size and SHA-256 of each file in the folder `model` that decides what the base is, by circumstance ("base
    weights model.safetensors"). What was hashed before and not touched since is not read again, else a minute or two
    goes by for a large model. Files that are not there are not named; "base weights" tells of which files they are.
    `read` is told of bytes as they are read."""
    weights = _weights(model)
    found = {"base weights": ", ".join(weights) or "none"}
    for kind, names in (("base weights", weights), ("base", [_CONFIG]), ("tokenizer", _TOKENIZER)):
        for name in names:
            try:
                found[f"{kind} {name}"] = _contents(model / name, read)
            except FileNotFoundError:
                if kind != "tokenizer":
                    found[f"{kind} {name}"] = "gone"
            except OSError as error:
                found[f"{kind} {name}"] = f"unreadable ({error.strerror})"
    return found


class BaseReading:
    """The circumstances of a base model's files, read in a thread while something else goes on."""

    def __init__(self, model: Path):
        self._found: dict[str, str] = {}
        self._model, self._done_bytes = model, 0
        # A daemon, since a run that ends before its first checkpoint needs none of it.
        self._thread = threading.Thread(target=self._read, name="base files", daemon=True)
        self._thread.start()

    def result(self, report: Callable[[int, int], None] = lambda done, total: None) -> dict[str, str]:
        """Waits until all is read. Meanwhile `report` is told again and again (bytes of weights done, of how many), and
        what it raises ends the wait."""
        self._thread.join(_LOOK_SECONDS)
        total = self._weight_bytes() if self._thread.is_alive() else 0
        while self._thread.is_alive():
            report(min(self._done_bytes, total), total)
            self._thread.join(_LOOK_SECONDS)
        return self._found

    def _read(self) -> None:
        self._found = base_circumstances(self._model, self._count)

    def _count(self, count: int) -> None:
        self._done_bytes += count

    def _weight_bytes(self) -> int:
        total = 0
        for name in _weights(self._model):
            with suppress(OSError):
                total += (self._model / name).stat().st_size
        return total


def _weights(model: Path) -> list[str]:
    """The weight files that are loaded: copies in other formats may lie beside them."""
    if (model / "model.safetensors").is_file():
        return ["model.safetensors"]
    with suppress(Problem, KeyError, AttributeError):
        return sorted({str(name) for name in read_json(model / _INDEX, INDEX_LIMIT_BYTES)["weight_map"].values()})
    return []


def _contents(path: Path, read: Callable[[int], None]) -> str:
    """Size and hash of a file. Raises OSError."""
    # Not waited for where it is a pipe, which whoever made the folder may have put there.
    with open(path, "rb", buffering=0, opener=_opened) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        # As for git: contents do not change without one of these. The number of the disk is none of them, since it may
        # be another after each start of the machine.
        stamp = [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
        place = f"contents/{hashlib.blake2b(os.fsencode(path.absolute()), digest_size=16).hexdigest()}"
        kept = read_cached(place)
        if kept is not None and kept.get("stamp") == stamp and isinstance(kept.get("contents"), str):
            read(found.st_size)
            return kept["contents"]
        digest, block = hashlib.sha256(), memoryview(bytearray(_BLOCK_BYTES))
        while count := file.readinto(block):
            digest.update(block[:count])
            read(count)
        contents = f"{found.st_size:,} bytes of SHA-256 {digest.hexdigest()}"
        # A file that was written just now may be written again without its times telling.
        if _is_settled(file.fileno(), found):
            write_cached(place, {"stamp": stamp, "contents": contents})
    return contents


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _is_settled(descriptor: int, before: os.stat_result) -> bool:
    """Whether a file was left alone while it was read, and for a while before."""
    after = os.fstat(descriptor)
    same = (after.st_size, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_size,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )
    # A time to come is that of a clock which was wrong, and no write from now on is given it.
    return same and abs(time.time() - max(after.st_mtime, after.st_ctime)) > _SETTLED_SECONDS
