"""The lines of a run's audit log: what each says, and how each is chained to the one before it.

    {"n":2,"at":"2026-03-01T09:30:00.125Z","who":{"uid":1000,"user":"ada","login_uid":1000},"pid":4711,"what":"started",
     "facts":{...},"previous":"<the hash of line 1>","hash":"<SHA-256 of every byte of this line before this field>"}

on one line each, in ASCII. The first line's `previous` is 64 zeros.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NONE_BEFORE = "0" * 64
TORN = "torn"
"""What an entry says that closes off a line which broke off: `facts` has the line's `bytes` and `sha256`."""
HEAD_DIFFERS = "head_differs"
"""What an entry says that was written to a log which did not hold the newest entry that was ever written to it."""

_LINE = re.compile(rb'(?P<said>\{.*),"hash":"(?P<hash>[0-9a-f]{64})"\}', re.DOTALL)
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. `at` is in UTC as RFC 3339 writes it; `facts` are JSON types by name."""

    n: int
    at: str
    who: Mapping[str, Any]
    pid: int
    what: str
    facts: Mapping[str, Any]
    previous: str
    hash: str

    def as_dict(self) -> dict[str, Any]:
        """Its fields by name, for `--json`."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Fault:
    """Something about the chain that is not as finetui leaves it: in which line, counted from 1, and what."""

    line: int
    what: str


@dataclass(slots=True)
class Chain:
    """A log that was read: what could be read of it, and what is wrong with it."""

    entries: list[Entry] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What looks odd and was told of at the time, or is what a power cut does."""
    unfinished: bytes = b""
    """What stands after the last line's end: a line that broke off."""

    @property
    def head(self) -> str:
        """The newest entry's hash; 64 zeros without one."""
        return self.entries[-1].hash if self.entries else NONE_BEFORE

    def entry_of(self, hash_start: str) -> Entry | None:
        """The entry whose hash begins with `hash_start`."""
        return next((entry for entry in self.entries if entry.hash.startswith(hash_start)), None)


def make_line(fields: Mapping[str, Any]) -> tuple[Entry, bytes]:
    """The entry of `fields` (all but its hash), and its line."""
    said = json.dumps(fields, ensure_ascii=True, separators=(",", ":")).removesuffix("}").encode("ascii")
    digest = hashlib.sha256(said).hexdigest()
    line = said + b',"hash":"' + digest.encode() + b'"}\n'
    # As it will be read, since tuples come back as lists.
    entry = parse_line(line[:-1])
    assert entry is not None
    return entry, line


def parse_line(line: bytes) -> Entry | None:
    """The entry of a line without its end; None when it is none, or was changed."""
    match = _LINE.fullmatch(line)
    if match is None or hashlib.sha256(match["said"]).hexdigest() != match["hash"].decode():
        return None
    try:
        fields = json.loads(line)
        entry = Entry(**fields)
    except (ValueError, TypeError, RecursionError):
        return None
    shaped = (
        type(entry.n) is int
        and type(entry.pid) is int
        and isinstance(entry.who, dict)
        and isinstance(entry.facts, dict)
        and all(isinstance(text, str) for text in (entry.at, entry.what, entry.previous))
        and _HASH.fullmatch(entry.previous) is not None
    )
    return entry if shaped else None


def read_chain(content: bytes) -> Chain:
    """All entries of a log, and every place where one does not follow from the one before it."""
    *lines, unfinished = content.split(b"\n")
    chain = Chain(unfinished=unfinished)
    broken: list[tuple[int, bytes]] = []  # lines that are none, since the last that was one
    for number, line in enumerate(lines, 1):
        entry = parse_line(line)
        if entry is None:
            broken.append((number, line))
            continue
        if broken:
            _judge_broken(chain, broken, entry)
        elif entry.previous != chain.head:
            before = chain.entries[-1].n if chain.entries else 0
            what = f"entry {entry.n} does not follow from what stands before it"
            if entry.n > before + 1:
                what += f": {entry.n - before - 1} entries were taken out"
            chain.faults.append(Fault(number, what))
        if entry.what == HEAD_DIFFERS:
            what = f"on {entry.at} the log did not hold entry {entry.facts.get('newest_n')}, which was written before"
            chain.faults.append(Fault(number, what))
        broken = []
        chain.entries.append(entry)
    chain.faults += [Fault(number, "was changed, or was never written by finetui") for number, _ in broken]
    if unfinished:
        chain.notes.append("the last line broke off: a power cut or a kill came while it was written")
    return chain


def _judge_broken(chain: Chain, broken: list[tuple[int, bytes]], entry: Entry) -> None:
    """Tell lines that broke off, and were closed off as such by `entry`, from lines that were changed."""
    for number, line in broken:
        told = entry.what == TORN and entry.facts.get("sha256") == hashlib.sha256(line).hexdigest()
        if told and entry.previous == chain.head:
            chain.notes.append(f"line {number} broke off: a power cut or a kill came while it was written")
        else:
            chain.faults.append(Fault(number, "was changed, or was never written by finetui"))
