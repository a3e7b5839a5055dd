"""What a process that prepares data reads, and where it keeps what it makes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.data.personal.key import key_path, pseudonym_key
from engine.data.prepare.cache import prepared_root
from engine.home import cache_root
from engine.seal.policy.places import Places, data_places


def preparing_places(model: Path, data: Mapping[str, Any]) -> Places:
    """For a process that prepares data as a spec's data section says, given as JSON types. Raises Problem where
    pseudonyms are asked for and their key can neither be read nor made."""
    named = [data.get("held_out"), *_list(data.get("train")), *_list(data.get("benchmarks"))]
    read = [model, *(each.get("path") if isinstance(each, Mapping) else each for each in named)]
    template = str(data.get("chat_template", ""))
    if template.endswith(".jinja"):
        read.append(template)
    if data.get("personal") == "pseudonymise":
        pseudonym_key()  # made out here, since the folder that it lies in is closed within
        read.append(key_path())
    kept = (prepared_root(), cache_root() / "tokenizers")
    return data_places((each for each in read if isinstance(each, str | Path)), kept)


def _list(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
