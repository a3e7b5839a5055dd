"""What a run took from outside of its folder, and what was handed out of it, as far as it can be reached from here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.run.directory import RunDirectory
from engine.run.evidence.chain import Chain
from engine.run.evidence.findings import DAMAGE, Finding, Findings, Reading, compare_file, words_of
from engine.run.evidence.hashing import hash_of, read_plain
from engine.run.evidence.own_files import newest
from profiles.problem import printable

_NOT_LEARNT = "holds other contents than the run learnt from"


def data_files(run: RunDirectory, chain: Chain, read: Reading) -> Findings:
    """The data's files as they are now, against their hashes when they were learnt from."""
    recorded = next((entry.facts["data"] for entry in reversed(chain.entries) if "data" in entry.facts), None)
    if recorded is None:
        yield from _unknown(chain, "the data", "the log does not say which files it was")
        return
    for number, was in enumerate(recorded):
        path, where = Path(was["path"]), printable(was["path"], 300)
        if path.is_dir():
            yield _folder(path, was, where, _members(run, number), read)
        else:
            yield compare_file(path, was, where, _NOT_LEARNT, read)


def base_model(chain: Chain, read: Reading) -> Findings:
    """The base model's files, against their hashes when they were loaded."""
    recorded = next((entry.facts["base"] for entry in reversed(chain.entries) if "base" in entry.facts), None)
    if recorded is None:
        yield from _unknown(chain, "the base model", "no checkpoint was saved, with which its hashes are recorded")
        return
    folder = Path(recorded["path"])
    if not folder.is_dir():
        yield Finding("gone", printable(folder, 300), "is not there any more, or not on this machine")
        return
    for name, was in recorded["files"].items():
        where = printable(folder / name, 300)
        yield compare_file(folder / name, was, where, "is not the file that the run began with", read)


def exports(run: RunDirectory, chain: Chain, read: Reading) -> Findings:
    """What was exported, where it still is: the newest export to each folder."""
    folders: dict[Path, Mapping[str, Any]] = {}
    for entry in chain.entries:
        if entry.what == "exported":
            folders[run.path / str(entry.facts["path"])] = entry.facts["files"]
    for folder, files in folders.items():
        if not folder.is_dir():
            yield Finding("gone", printable(folder, 300), "what was exported there was moved or removed since")
            continue
        for name, was in files.items():
            where = printable(folder / name, 300)
            found = compare_file(folder / name, was, where, "was changed after it was exported", read)
            removed = Finding("differs", where, "was removed after it was exported", found.was)
            yield removed if found.kind == "gone" else found
        for path in sorted(folder.rglob("*")):
            if not path.is_dir() and str(path.relative_to(folder)) not in files:
                yield Finding("differs", printable(path, 300), "was added after it was exported")


def _unknown(chain: Chain, where: str, means: str) -> Findings:
    if newest(chain, "attempt", "ended") is not None:
        yield Finding("unchecked", where, means)


def _folder(path: Path, was: Mapping[str, Any], where: str, members: list[str], read: Reading) -> Finding:
    """A folder of data: one hash over the hashes and names of those of its files that were read."""
    if not members:
        return Finding("unchecked", where, "which of its files were read is not known any more", words_of(was))
    digest, size = hashlib.sha256(), 0
    for name in members:
        try:
            contents = hash_of(path / name, lambda count, name=name: read(name, count))  # type: ignore[misc]
        except OSError:
            return Finding("differs", where, f"{printable(name)} of it is gone, or cannot be read", words_of(was))
        digest.update(f"{contents['sha256']}  {name}\n".encode(errors="surrogateescape"))
        size += contents["bytes"]
    now = {"bytes": size, "sha256": digest.hexdigest()}
    if now["sha256"] == was["sha256"]:
        return Finding("matches", where, f"{len(members):,} files hold what they held")
    return Finding("differs", where, _NOT_LEARNT, words_of(was), words_of(now))


def _members(run: RunDirectory, number: int) -> list[str]:
    """The files of a source that is a folder, in the order in which they were read."""
    try:
        source = json.loads(read_plain(run.data / "sources.json"))["gathered"][number]
        return list(dict.fromkeys(str(file) for shard in source["shards"] for file, _ in shard["pieces"]))
    except DAMAGE:
        return []
