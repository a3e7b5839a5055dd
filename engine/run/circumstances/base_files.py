"""The files of a base model by their contents: SHA-256 of weights, config and tokenizer, each file read once."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from engine.fit.cache import read_cached, write_cached

_INDEX = "model.safetensors.index.json"
_CONFIG = "config.json"
# All that transformers makes a tokenizer from.
_TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "merges.txt"),
    *("chat_template.jinja", "chat_template.json"),
)


# The kernel's clock for times of change goes on in steps of some milliseconds, that of a file server up to seconds.
_SETTLED_SECONDS = 2.0


def base_circumstances(model: Path) -> dict[str, str]:
    """Size and SHA-256 of each file in the folder `model` that decides what the base is, by circumstance ("base
    weights model.safetensors"). What was hashed before and not touched since is not read again, else a minute or two
    goes by for a large model. Files that are not there are not named; "base weights" tells of which files they are."""
    weights = _weights(model)
    found = {"base weights": ", ".join(weights) or "none"}
    for kind, names in (("base weights", weights), ("base", [_CONFIG]), ("tokenizer", _TOKENIZER)):
        for name in names:
            try:
                found[f"{kind} {name}"] = _contents(model / name)
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
        # A daemon, since a run that ends before its first checkpoint needs none of it.
        self._thread = threading.Thread(target=self._read, args=(model,), name="base files", daemon=True)
        self._thread.start()

    def result(self) -> dict[str, str]:
        """Waits until all is read."""
        self._thread.join()
        return self._found

    def _read(self, model: Path) -> None:
        self._found = base_circumstances(model)


def _weights(model: Path) -> list[str]:
    """The weight files that are loaded: copies in other formats may lie beside them."""
    if (model / "model.safetensors").is_file():
        return ["model.safetensors"]
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        return sorted({str(name) for name in json.loads((model / _INDEX).read_bytes())["weight_map"].values()})
    return []


def _contents(path: Path) -> str:
    """Size and hash of a file. Raises OSError."""
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        # As for git: contents do not change without one of these.
        stamp = [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
        place = f"contents/{hashlib.blake2b(os.fsencode(path.absolute()), digest_size=16).hexdigest()}"
        kept = read_cached(place)
        if kept is not None and kept.get("stamp") == stamp and isinstance(kept.get("contents"), str):
            return kept["contents"]
        contents = f"{found.st_size:,} bytes of SHA-256 {hashlib.file_digest(file, 'sha256').hexdigest()}"
        # A file that was written just now may be written again without its times telling.
        if _is_settled(file.fileno(), found):
            write_cached(place, {"stamp": stamp, "contents": contents})
    return contents


def _is_settled(descriptor: int, before: os.stat_result) -> bool:
    """Whether a file was left alone while it was read, and for a while before."""
    after = os.fstat(descriptor)
    same = (after.st_size, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_size,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )
    return same and time.time() - max(after.st_mtime, after.st_ctime) > _SETTLED_SECONDS
