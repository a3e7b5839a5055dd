"""The text tokenizer of a model's folder: from the cache, or through a child process that asks transformers once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from engine.data.tokens.templates import TemplateChoice, choose_template
from engine.data.tokens.text_tokenizer import Description, TextTokenizer
from engine.home import cache_root
from engine.modules import module_command
from engine.run.durable_files import write_atomically
from engine.seal.policy.places import data_places
from engine.seal.sealing import run_sealed
from profiles.bounded_files import open_regular, read_bytes, read_json
from profiles.problem import Problem, printable
from profiles.shapes.model_config import CONFIG_LIMIT_BYTES
from profiles.shapes.model_folder import TOKENIZER_LIMIT_BYTES
from profiles.shapes.model_folder import read_tokenizer as look_at_tokenizer

_FORMAT = 1
# Importing transformers takes some 4 s, on a busy machine or a network disk a minute.
_TIMEOUT_SECONDS = 180.0
# What a tokenizer is made from has one of these endings, or this name; config.json says which class reads it.
_ENDINGS = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".vocab")
_FOLDERS = ("", "additional_chat_templates", "chat_templates")
# Of each folder: a model with more is none.
_FILES_LIMIT = 10_000

Describe = Callable[[Path], dict[str, Any]]


def load_text_tokenizer(model: Path, chat_template: str = "model", describe: Describe | None = None) -> TextTokenizer:
    """The tokenizer in the folder `model`, with the chat template that `chat_template` names (see `choose_template`).

    Takes some seconds for a tokenizer never seen before, since a child process imports transformers; a process that
    has imported it gives `reference.describe_folder`. Raises Problem for a folder without a tokenizer, one that cannot
    be read, and a choice that is none.
    """
    require_tokenizer(model)
    description = _described(model, describe or _ask_child)
    choice = choose_template(chat_template, description, str(model))
    embedding_rows = _embedding_rows(model)
    return TextTokenizer(
        str(model),
        description,
        template_name=choice.name,
        chat_template=choice.template,
        embedding_rows=embedding_rows,
        notes=tuple(_notes(description, choice, embedding_rows)),
    )


def vet_tokenizer(model: Path) -> None:
    """Raises Problem unless a process whose time and memory are limited can read the tokenizer in `model`: for those
    that cannot be limited, before they read it themselves. Takes a moment; nothing for one that was read before."""
    require_tokenizer(model)
    if not _kept(model).exists():
        _ask_child(model, "engine.data.tokens.vetting_child")


def require_tokenizer(model: Path) -> None:
    """Raises Problem when `model` is no folder, or one without a tokenizer's files, or where they cannot be what they
    should be."""
    if not model.is_dir():
        raise Problem(str(model), "is not a folder", "Give the folder that holds the model.")
    if not any((model / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise Problem(
            str(model), "has no tokenizer", "Copy tokenizer.json and tokenizer_config.json beside config.json."
        )
    _, _, problems = look_at_tokenizer(model)
    if problems:
        raise problems[0]


def _kept(model: Path) -> Path:
    return cache_root() / "tokenizers" / f"{_key(model)}.json"


def _described(model: Path, describe: Describe) -> Description:
    path = _kept(model)
    # Sealed processes write here, and one that was taken over may have put anything there: a pipe would be waited for.
    with suppress(Problem, ValueError, KeyError, TypeError, RecursionError):
        return Description.from_dict(json.loads(read_bytes(path, TOKENIZER_LIMIT_BYTES)))
    told = describe(model)
    description = Description.from_dict(told)
    with suppress(OSError):  # a disk that is full or read-only costs the next caller time, and nothing else
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(dataclasses.asdict(description)).encode())
    return description


def _key(model: Path) -> str:
    """A hash of all files that may decide what the tokenizer is, and of the libraries that read them."""
    digest = hashlib.sha256(f"{_FORMAT} {version('transformers')} {version('tokenizers')}".encode())
    try:
        for folder in (model / name for name in _FOLDERS):
            for path in sorted(islice(folder.iterdir(), _FILES_LIMIT)) if folder.is_dir() else ():
                if path.name.endswith(_ENDINGS) and path.is_file() and path.stat().st_size <= TOKENIZER_LIMIT_BYTES:
                    digest.update(f"\0{path.relative_to(model)}\0".encode(errors="surrogateescape"))
                    with open_regular(path) as file:
                        digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        where = str(error.filename or model)
        raise Problem(where, f"cannot be read: {error.strerror}", "Check the path and its permissions.") from None
    return digest.hexdigest()[:32]


def _ask_child(model: Path, module: str = "engine.data.tokens.reference_child") -> dict[str, Any]:
    try:
        done = run_sealed(
            module_command(module, str(model.absolute())),
            data_places([model]),
            timeout_seconds=_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise Problem(
            f"{model}, tokenizer",
            f"was not read within {_TIMEOUT_SECONDS:.0f} s",
            "On a busy machine, try again; else copy the tokenizer's files again.",
        ) from None
    try:
        told = json.loads(done.stdout)
    except ValueError:
        # Rust tells people to ask for more at the end.
        lines = [line for line in done.stderr.decode(errors="replace").split("\n") if line.strip()]
        last = next((line for line in reversed(lines) if not line.startswith("note: ")), "")
        raise Problem(
            f"{model}, tokenizer",
            f"cannot be read: {printable(last or f'the reader ended with status {done.returncode}', 200)}",
            "Copy the tokenizer's files again.",
        ) from None
    if problem := told.get("problem"):
        raise Problem(**problem)
    return told


def _embedding_rows(model: Path) -> int | None:
    try:
        values = read_json(model / "config.json", CONFIG_LIMIT_BYTES)
    except Problem:
        return None  # who trains the model tells what is wrong with it
    text = values.get("text_config")
    for found in (values, text if isinstance(text, Mapping) else {}):
        rows = found.get("vocab_size")
        if type(rows) is int and rows > 0:
            return rows
    return None


def _notes(description: Description, choice: TemplateChoice, embedding_rows: int | None) -> Iterator[str]:
    yield from choice.notes
    if embedding_rows is not None and description.vocabulary > embedding_rows:
        yield (
            f"the tokenizer has {description.vocabulary:,} tokens and the model's embedding {embedding_rows:,} rows: "
            "rows with a token beyond them are set aside"
        )
