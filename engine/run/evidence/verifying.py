"""Whether a run still is what was written down of it: everything is read again and compared with the audit log.

What this cannot notice: who may write to the run's folder and to finetui's home, as its user may, can write both anew,
log and head alike. Against that stands a head that was written down elsewhere (`expected`). A log that was taken away
with its head looks like a run of an earlier finetui. And nothing here says that what was recorded was true when it was.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engine.run.directory import RunDirectory
from engine.run.evidence.audit import audit_path, read_audit
from engine.run.evidence.chain import Chain
from engine.run.evidence.findings import Finding, Findings, Reading, guarded, reason
from engine.run.evidence.heads import Head, read_head
from engine.run.evidence.other_files import base_model, data_files, exports
from engine.run.evidence.own_files import (
    checkpoints,
    journal,
    kept_data,
    lineage_file,
    outputs,
    snapshot,
    unvouched,
    written_once,
)
from engine.run.processes.lock import lock_holder

SHORTEST_EXPECTED = 12
"""Hexadecimal digits of a head that are enough to tell it from any other."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """All findings, in the order of looking; `head` is that of the log, for writing it down."""

    findings: tuple[Finding, ...]
    entries: int
    head: str

    @property
    def holds(self) -> bool:
        """Whether nothing differs. What is gone outside of the run's folder, or could not be checked, is no difference
        and is told apart."""
        return not any(finding.kind == "differs" for finding in self.findings)

    def of(self, kind: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.kind == kind]

    def as_dict(self) -> dict[str, Any]:
        return {
            "holds": self.holds,
            "entries": self.entries,
            "head": self.head,
            "findings": [finding.as_dict() for finding in self.findings],
        }


def verify(run: RunDirectory, expected: str = "", read: Reading = lambda what, count: None) -> Verdict:
    """Look at all of `run`. `expected` is a head, or the beginning of one, that somebody wrote down; `read` is told of
    bytes as they are read. Damage of any kind is found, not raised."""
    # The head before the log, which is written first: what a live run adds in between is not missing from the log.
    chain, head = Chain(), read_head(run)
    try:
        chain = read_audit(run)
        found = list(_log(run, chain, head, expected))
    except OSError as error:
        found = [Finding("differs", audit_path(run).name, f"cannot be read: {reason(error)}")]
    for where, look in (
        ("spec.toml", lambda: written_once(run, chain)),
        ("lineage.json", lambda: lineage_file(run, chain)),
        ("events.jsonl", lambda: journal(run, chain, read)),
        ("snapshot.json", lambda: snapshot(run)),
        ("checkpoints", lambda: checkpoints(run, chain, read)),
        ("data", lambda: kept_data(run, chain, read)),
        ("outputs", lambda: outputs(run, chain, read)),
        ("the data", lambda: data_files(run, chain, read)),
        ("the base model", lambda: base_model(chain, read)),
        ("exports", lambda: exports(run, chain, read)),
        ("the run's folder", lambda: unvouched(run, chain)),
    ):
        found += guarded(where, look)
    found += guarded("the run's folder", lambda: _circumstances(run, chain))
    return Verdict(tuple(found), len(chain.entries), chain.head if chain.entries else "")


def _log(run: RunDirectory, chain: Chain, head: Head | None, expected: str) -> Findings:
    """The chain itself, and its head."""
    name = audit_path(run).name
    if not (chain.entries or chain.faults or chain.unfinished):
        if head is not None:
            yield Finding("differs", name, f"is gone; it had {head.n:,} entries", f"head {head.hash[:16]}…")
        else:
            yield Finding(
                "unchecked", name, "there is none: an earlier finetui made the run, or log and head were taken away"
            )
    else:
        yield from (Finding("differs", f"{name}, line {fault.line}", fault.what) for fault in chain.faults)
        yield from (Finding("note", name, note) for note in chain.notes)
        if not chain.faults:
            yield Finding("matches", name, f"{len(chain.entries):,} entries, each chained to the one before it")
        yield from _kept_head(head, chain)
        if chain.entries and chain.entries[0].what != "created":
            yield Finding("note", name, "began after the run was made: an earlier finetui made it")
    if expected:
        entry = chain.entry_of(expected.lower())
        if entry is not None:
            more = len(chain.entries) - entry.n
            yield Finding("matches", "the head you gave", f"is that of entry {entry.n:,}; {more:,} were added since")
        else:
            now = f"head {chain.head[:16]}…" if chain.entries else "no log"
            what = "is in no entry of the log: this is another run's, or the log was cut short or written anew since"
            yield Finding("differs", "the head you gave", what, f"head {expected[:16]}", now)


def _kept_head(head: Head | None, chain: Chain) -> Findings:
    where = "the head in finetui's home"
    if head is None:
        yield Finding("unchecked", where, "none is kept here for this folder: it was made elsewhere, or is a copy")
    elif (entry := chain.entry_of(head.hash)) is not None and entry.n == head.n:
        yield Finding("matches", where, f"is that of entry {head.n:,}")
    else:
        what = "the log does not hold the entry that was its newest: it was cut short, or written anew"
        now = f"entry {chain.entries[-1].n:,}, {chain.head[:16]}…" if chain.entries else "no entry"
        yield Finding("differs", where, what, f"entry {head.n:,}, {head.hash[:16]}…", now)


def _circumstances(run: RunDirectory, chain: Chain) -> Iterator[Finding]:
    if run.lock_path.is_file() and lock_holder(run.lock_path) is not None:
        yield Finding("note", run.name, "is live: what it writes meanwhile is looked at as it was a moment ago")
    hosts = {entry.facts.get("host") for entry in chain.entries if entry.what == "created"}
    if hosts and platform.node() not in hosts:
        yield Finding("note", run.name, "was made on another machine; what lies there cannot be checked here")
