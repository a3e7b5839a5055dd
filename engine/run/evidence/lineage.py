"""lineage.json: where all that a run learnt from came from, by section, each written whole.

    data         the files it learnt from and what was made of them (see Dataset.lineage)
    continued    what had changed when it went on all the same
    base         the files of the base model, by size and SHA-256
    environment  the libraries and the device that did its arithmetic
    seal         by attempt: what kept the trainer from the network, and how that was tried
    exports      what was handed out of the run's folder, where to, and its files by size and SHA-256

The hash of each section goes into the audit log before the section is written, so that a change made by anybody else is
noticed (`finetui verify`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from engine.run.directory import RunDirectory
from engine.run.durable_files import write_atomically
from engine.run.evidence.audit import record, wait_for_lock
from engine.run.evidence.hashing import read_plain

INPUTS = ("data", "base")
"""The sections that name what a run learnt from."""


def write_lineage(run: RunDirectory, sections: Mapping[str, Any]) -> None:
    """Put `sections` (JSON types) into the run's lineage.json; others that are there stay. Raises OSError."""
    change_lineage(run, lambda _: sections)


def change_lineage(run: RunDirectory, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """As `write_lineage`, with what `change` makes of the sections that are there: of two processes that do so at once
    neither undoes the other's. Raises OSError."""
    with lineage_alone(run):
        before = read_lineage(run)
        sections = json.loads(json.dumps(dict(change(before))))
        changed = {
            name: section_sha256(section) for name, section in sections.items() if section != before.get(name, ...)
        }
        if not changed:
            return
        # Before the file, so that what a power cut leaves is at worst an older section that the log knows as well.
        what = "inputs" if changed.keys() & set(INPUTS) else "lineage"
        record(run, what, sections=changed, **_inputs({name: sections[name] for name in changed}))
        written = {**before, **sections}
        write_atomically(run.lineage_path, json.dumps(written, indent=1, ensure_ascii=False).encode() + b"\n")


def read_lineage(run: RunDirectory) -> dict[str, Any]:
    """The sections by name; none for a run whose data was not prepared yet, or where the file cannot be read."""
    try:
        values = json.loads(read_plain(run.lineage_path))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def section_sha256(section: Any) -> str:
    """Of a section's canonical form: JSON in ASCII, names sorted, no spaces."""
    return hashlib.sha256(json.dumps(section, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _inputs(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Of the sections that name files, each file's size and hash, for a log that says it without them."""
    found: dict[str, Any] = {}
    if sources := sections.get("data", {}).get("sources"):
        found["data"] = [
            {"path": each["path"], "bytes": each["size_bytes"], "sha256": each["sha256"]} for each in sources
        ]
    if "base" in sections:
        found["base"] = sections["base"]
    return found


@contextmanager
def lineage_alone(run: RunDirectory) -> Iterator[None]:
    """Nobody else writes the lineage within the block. Raises OSError."""
    descriptor = os.open(run.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        wait_for_lock(descriptor, run.path)
        yield
    finally:
        os.close(descriptor)
