"""What a run keeps of its preparation, so that a resume goes on with exactly the data that it began with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.data.files import chunks_of
from engine.data.prepare.benchmarks import BenchmarkPlaces
from engine.data.prepare.gather import TARGET_BYTES, Gathered, gathered_from, is_whole
from engine.data.prepare.stamps import stamp_of
from engine.data.rows import shown
from engine.data.shapes import Reading
from engine.data.source import Source
from engine.run.directory import KEPT_DATA_ACCEPTED
from engine.run.durable_files import write_atomically
from engine.run.endings.causes import ChangedSince
from profiles.problem import Problem

_RECORD = "sources.json"


@dataclass(frozen=True, slots=True)
class Kept:
    """The sources of a run as they were prepared at its start."""

    gathered: tuple[Gathered, ...]
    readings: tuple[Reading, ...]
    stamps: tuple[list[int] | None, ...]
    benchmarks: BenchmarkPlaces
    tokenizer_sha256: str
    session: str
    """Who last made sure that the sources are unchanged (see `require_unchanged`)."""

    def write(self, keep: Path) -> None:
        """Raises OSError."""
        keep.mkdir(parents=True, exist_ok=True)
        values = {**asdict(self), "readings": [asdict(each) for each in self.readings]}
        write_atomically(keep / _RECORD, json.dumps(values).encode())


def read_kept(keep: Path) -> Kept | None:
    """What is kept in the folder `keep`; None before a first preparation was complete."""
    try:
        values: dict[str, Any] = json.loads((keep / _RECORD).read_bytes())
    except (OSError, ValueError):
        return None
    return Kept(
        gathered=tuple(map(gathered_from, values["gathered"])),
        readings=tuple(Reading(**each) for each in values["readings"]),
        stamps=tuple(values["stamps"]),
        benchmarks=BenchmarkPlaces.from_dict(values["benchmarks"]),
        tokenizer_sha256=values["tokenizer_sha256"],
        session=values["session"],
    )


def is_all_there(keep: Path, kept: Kept) -> bool:
    """Whether every shard that a run keeps is."""
    return all(is_whole(each.shard_path(keep, shard)) for each in kept.gathered for shard in each.shards)


def require_unchanged(
    keep: Path, kept: Kept, sources: Sequence[Source], session: str, *, anyway: bool = False
) -> tuple[list[str], dict[str, str]]:
    """Compare the sources with what was prepared of them. Returns notes on those that are gone or changed, and the
    SHA-256 of those that changed, as they are now, by their numbers from "1".

    Raises ChangedSince for a changed source when a person resumes the run and has not said that it is to go on with
    what was kept, in so many words or with all else that changed (`anyway`). `session` names the process that watches
    over the run: within one session a run starts again by itself (after its memory ran out, say), when nobody is there
    to ask, and goes on with a note.
    """
    asks = session != kept.session and not is_accepted(keep)
    notes, changed = [], {}
    for number, now in changed_sources(kept, sources).items():
        path, was = shown(sources[number - 1].path), kept.gathered[number - 1].sha256
        if now is None:
            notes.append(f"{path} is gone; the run goes on with what was prepared of it")
            continue
        if asks and not anyway:
            raise ChangedSince(
                path,
                f"changed since the run began (SHA-256 was {was}, is {now})",
                "Put the file back as it was, or resume with `finetui resume --kept-data` to go on with what was "
                "prepared of it at the start, or start a new run to learn from what it holds now.",
            )
        if asks:
            (keep / KEPT_DATA_ACCEPTED).touch()
        changed[str(number)] = now
        notes.append(f"{path} changed since the run began, which goes on with what it was then")
    return notes, changed


def is_accepted(keep: Path) -> bool:
    """Whether a person said that the run goes on with what it began with, whatever becomes of the files."""
    return (keep / KEPT_DATA_ACCEPTED).exists()


def changed_sources(kept: Kept, sources: Sequence[Source]) -> dict[int, str | None]:
    """The sources that are not as they were prepared, by their numbers from 1: their SHA-256 now, None where they are
    gone. Those that were not touched are not read."""
    found = {}
    for number, (source, gathered, stamp) in enumerate(zip(sources, kept.gathered, kept.stamps, strict=True), 1):
        if stamp is None or stamp_of(source) != stamp:
            now = _sha256_of(source)
            if now != gathered.sha256:
                found[number] = now
    return found


def _sha256_of(source: Source) -> str | None:
    """Of the source as it is now; None where it cannot be read any more."""
    try:
        with chunks_of(source, TARGET_BYTES) as chunks:
            for _ in chunks:
                pass
            return chunks.sha256
    except Problem:
        return None
