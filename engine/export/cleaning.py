"""Exported settings without the places of the machine that they were made on. No torch.

Libraries write into a model's settings from which folder it was loaded; such a path tells a user's name, and how a
machine's disks are called.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

# Whole vocabularies, in which a text that looks like a path is a token.
CONTENTS = frozenset({"tokenizer.json", "vocab.json", "added_tokens.json", "special_tokens_map.json", "classes.json"})
REMOTE_CODE = "auto_map"
"""Names classes in code that lies beside a model, or on a hub: no export has such code."""
_NAMES_A_PLACE = re.compile(r"(^|_)(path|file|files|dir|folder|name_or_path)$")
_IS_A_PLACE = re.compile(r"/|~|\\\\|[A-Za-z]:[\\/]|file:")
# Settings take some thousand bytes.
_MOST_BYTES = 4 << 20


def clean_settings(folder: Path) -> None:
    """Cut paths in the settings below `folder` to their last names: "/home/ada/models/llama" to "llama"; and take out
    what names code to be loaded, which is not exported. Files without any keep every byte. Raises OSError."""
    for path in sorted(folder.rglob("*.json")):
        if path.name in CONTENTS or path.is_symlink() or path.stat().st_size > _MOST_BYTES:
            continue
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            continue  # a file that is no JSON is none that a library wrote its settings into
        cleaned = _cleaned(values)
        if cleaned != values:
            path.write_text(json.dumps(cleaned, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def model_name(model: Path) -> str:
    """What a model in this folder is called: the folder's name, and in a hub's cache the name that it has there."""
    store = model.parent.parent.name
    if model.parent.name == "snapshots" and store.startswith("models--"):
        return store.removeprefix("models--").replace("--", "/")
    return model.name


def _cleaned(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _cleaned(each, name) for name, each in value.items() if name != REMOTE_CODE}
    if isinstance(value, list):
        return [_cleaned(each, key) for each in value]
    if isinstance(value, str) and _NAMES_A_PLACE.search(key) and _IS_A_PLACE.match(value):
        return model_name(Path(value.replace("\\", "/")))
    return value
