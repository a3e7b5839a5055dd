"""What a verification found: one finding for each thing that was looked at, good or not."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from engine.run.evidence.hashing import hash_of

Kind = Literal["matches", "differs", "gone", "unchecked", "note"]
"""matches: it is as it was written down. differs: it is not, or is missing from the run's own folder. gone: a file of
the person's, outside of it, is not there any more. unchecked: nothing was written down that it could be compared with,
or it cannot be looked at from here. note: worth knowing, and no sign of a change."""

Reading = Callable[[str, int], None]
"""Told of bytes as they are read: of what, and how many more."""

HOLDS = "holds what it held"
"""Said of a file that matches."""

DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError)
"""What comes of reading a file of ours that somebody damaged."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`where` it is (a file, "audit log, line 7"), what it `was` and is `now` where that can be said, and what that
    `means`, in a sentence without its full stop."""

    kind: Kind
    where: str
    means: str
    was: str = ""
    now: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


Findings = Iterator[Finding]


def compare_file(path: Path, was: Mapping[str, Any], where: str, means: str, read: Reading) -> Finding:
    """A file against the `bytes` and `sha256` that were written down of it; `means` says what a difference means."""
    try:
        now = hash_of(path, lambda count: read(path.name, count))
    except FileNotFoundError:
        return Finding("gone", where, "is not there any more", words_of(was))
    except OSError as error:
        # What is no plain file any more (see hash_of) was put in its place.
        kind: Kind = "differs" if error.errno == errno.EINVAL else "unchecked"
        return Finding(kind, where, f"cannot be read: {reason(error)}", words_of(was))
    if (now["bytes"], now["sha256"]) == (was["bytes"], was["sha256"]):
        return Finding("matches", where, HOLDS)
    return Finding("differs", where, means, words_of(was), words_of(now))


def words_of(contents: Mapping[str, Any]) -> str:
    """Size and hash of a file for a person."""
    return f"{int(contents['bytes']):,} bytes of SHA-256 {str(contents['sha256'])[:16]}…"


def reason(error: Exception) -> str:
    """Why something could not be read, in words."""
    if isinstance(error, OSError):
        number = error.errno or errno.EIO
        return error.strerror or os.strerror(number)
    return "it is damaged"


def guarded(where: str, look: Callable[[], Findings]) -> Findings:
    """What `look` finds; and where something that it reads is damaged in a way that it does not tell, that."""
    try:
        yield from look()
    except DAMAGE as error:
        yield Finding("differs", where, f"cannot be read as finetui wrote it: {reason(error)}")
