"""audit.jsonl: what was done with a run, when and by whom; lines are only ever added, each chained to the one before.

What is recorded are facts about the run, never a word of its data or of a talk. Whoever may write to the folder can
record, and so could a trainer that is not sealed; `who` says which user of this machine it was, as the kernel has it.
The head outside of the folder (see heads) shows where entries were taken away.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.run.directory import RunDirectory
from engine.run.evidence.chain import HEAD_DIFFERS, NONE_BEFORE, TORN, Chain, Entry, make_line, parse_line, read_chain
from engine.run.evidence.hashing import read_plain
from engine.run.evidence.heads import Head, read_head, write_head

if TYPE_CHECKING:
    from engine.seal.report import SealReport

_TAIL_BYTES = 1 << 16
# The longest entry names every file of a run's outputs and data. What has no entry in so much is no log of ours: who
# writes to it (a worker that was taken over may) must not have the engine read on without end.
_MOST_TAIL_BYTES = 1 << 26
# A line takes milliseconds to write, and a disk that is about to fail some seconds.
_LOCK_SECONDS = 10.0
_LOOK_SECONDS = 0.02
_NO_LOGIN = 0xFFFFFFFF


def record(run: RunDirectory, what: str, /, **facts: Any) -> None:
    """Add an entry to the run's audit log; it is on the disk when this returns. `facts` are JSON types.

    Raises OSError where it could not be written, and then it does not count: a full disk, a disk that does not take it,
    or another writer that holds the log for ten seconds. Training does not depend on it: who calls on behalf of a run
    that goes on catches that, and tells it in the journal. A head that could not be kept (see heads) is written with
    the next entry.
    """
    append_entry(audit_path(run), what, facts, run)


def append_entry(path: Path, what: str, facts: Mapping[str, Any], run: RunDirectory | None = None) -> None:
    """Add an entry to the log at `path`, and before it what was found wrong with the log's end: a line that broke off,
    or, of the log of a `run`, that it does not hold the entry that is known to have been its newest. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        wait_for_lock(descriptor, path)
        if os.fstat(descriptor).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, "the run was removed meanwhile", str(path))
        newest = _append(descriptor, what, facts, read_head(run) if run is not None else None)
        if run is not None:
            with suppress(OSError):
                write_head(run, newest.n, newest.hash)
    finally:
        os.close(descriptor)


def audit_path(run: RunDirectory) -> Path:
    """The log's file."""
    return run.path / "audit.jsonl"


def read_audit(run: RunDirectory) -> Chain:
    """The run's audit log; an empty one where there is none. Raises OSError."""
    try:
        return read_chain(read_plain(audit_path(run)))
    except FileNotFoundError:
        return Chain()


def seal_facts(report: SealReport) -> dict[str, Any]:
    """What an entry says of the seal under which a child process worked."""
    return {
        "level": report.level,
        "held": list(report.held),
        "missing": {layer.layer: layer.why for layer in report.missing},
        "inherited": report.inherited,
    }


def wait_for_lock(descriptor: int, path: Path) -> None:
    """Keep other writers out until the descriptor is closed. Raises OSError, after ten seconds at the latest.

    By flock, which belongs to the open file: the threads of a process keep each other out as well."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, "another process holds it", str(path)) from None
            time.sleep(_LOOK_SECONDS)
        else:
            return


def this_user() -> dict[str, Any]:
    """Who this process acts for: its user, and the one who logged in (another one after su or sudo), null where the
    kernel does not know. The name is that of /etc/passwd: a directory server is not asked, which may be far away."""
    uid = os.getuid()
    return {"uid": uid, "user": _user_name(uid), "login_uid": _login_uid()}


def _append(descriptor: int, what: str, facts: Mapping[str, Any], head: Head | None) -> Entry:
    newest, unfinished = _end_of(descriptor)
    added: list[tuple[str, Mapping[str, Any]]] = []
    start = b""
    if unfinished:
        start = b"\n"
        if (whole := parse_line(unfinished)) is not None:
            newest = whole  # it lacks its end alone
        else:
            added.append((TORN, {"bytes": len(unfinished), "sha256": hashlib.sha256(unfinished).hexdigest()}))
    if head is not None and (newest is None or head.hash != newest.hash) and not _holds(descriptor, head.hash):
        added.append((HEAD_DIFFERS, {"newest_n": head.n, "newest_hash": head.hash}))
    for word, details in [*added, (what, facts)]:
        newest, line = make_line(_fields(newest, word, details))
        start += line
    assert newest is not None
    _write(descriptor, start)
    return newest


def _fields(newest: Entry | None, what: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    now = time.time()
    return {
        "n": newest.n + 1 if newest else 1,
        "at": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now * 1000) % 1000:03}Z",
        "who": this_user(),
        "pid": os.getpid(),
        "what": what,
        "facts": dict(facts),
        "previous": newest.hash if newest else NONE_BEFORE,
    }


def _end_of(descriptor: int) -> tuple[Entry | None, bytes]:
    """The newest entry that is whole, and what stands after the last line's end. Raises OSError, also where there is
    no entry far and wide."""
    size, length = os.fstat(descriptor).st_size, _TAIL_BYTES
    while True:
        start = max(0, size - length)
        *lines, unfinished = os.pread(descriptor, size - start, start).split(b"\n")
        for line in reversed(lines if start == 0 else lines[1:]):
            if (entry := parse_line(line)) is not None:
                return entry, unfinished
        if start == 0:
            return None, unfinished
        if length >= _MOST_TAIL_BYTES:
            raise OSError(errno.EFBIG, "its end is no audit log's")
        length *= 4


def _holds(descriptor: int, entry_hash: str) -> bool:
    """Raises OSError."""
    with os.fdopen(os.dup(descriptor), "rb") as log:
        log.seek(0)
        while line := log.readline(_MOST_TAIL_BYTES):
            if (entry := parse_line(line.removesuffix(b"\n"))) is not None and entry.hash == entry_hash:
                return True
    return False


def _write(descriptor: int, data: bytes) -> None:
    """Add `data` whole, or take back what was written of it. Raises OSError."""
    before, written = os.fstat(descriptor).st_size, 0
    try:
        while written < len(data):  # more than once only when the disk is nearly full, to learn why it stops
            written += os.write(descriptor, data[written:])
        os.fsync(descriptor)
    except OSError:
        with suppress(OSError):  # else the next entry closes it off
            os.ftruncate(descriptor, before)
        raise


def _user_name(uid: int) -> str | None:
    with suppress(OSError):
        for line in Path("/etc/passwd").read_text(encoding="utf-8", errors="replace").splitlines():
            name, *fields = line.split(":")
            if len(fields) >= 2 and fields[1] == str(uid):
                return name
    return None


def _login_uid() -> int | None:
    with suppress(OSError, ValueError):
        uid = int(Path("/proc/self/loginuid").read_text())
        return None if uid == _NO_LOGIN else uid
    return None
