"""Calls that lead deep into the kernel, or to programs outside without a socket or a file. One that the kernel answers
otherwise than by a refusal got in, even where it then fails on what it was given."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from engine.seal.proof.probes.aims import Aims
from engine.seal.proof.probes.calls import Refused, call

_REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSYS)
_SESSION_KEYRING = -3
_SET_FILTER, _NEW_LISTENER = 1, 8
_NUMBER = 0x66696E65


def by_bpf(aims: Aims) -> str:
    return _gets_in("bpf", 0, None, 0)


def by_answering(aims: Aims) -> str:
    """A filter that answers for refused calls in place of the one who is to. The program that would say which is left
    out: nothing is taken on either way."""
    return _gets_in("seccomp", _SET_FILTER, _NEW_LISTENER, None)


def by_events(aims: Aims) -> str:
    return _gets_in("perf_event_open", None, 0, -1, -1, 0)


def by_keys(aims: Aims) -> str:
    """Keys that the kernel holds for the person's session: of network drives and encrypted disks."""
    return _gets_in("keyctl", 6, _SESSION_KEYRING, None, 0)


def by_new_key(aims: Aims) -> str:
    return _gets_in("add_key", None, None, None, 0, _SESSION_KEYRING)


def by_queue(aims: Aims) -> str:
    """A message queue by its number, which another process may have."""
    return _shared(aims, "msgget", _NUMBER, 0)


def by_named_queue(aims: Aims) -> str:
    return _shared(aims, "mq_open", f"finetui-{aims.nonce}".encode(), os.O_RDWR, 0, None)


def by_numbered_memory(aims: Aims) -> str:
    return _shared(aims, "shmget", _NUMBER, 4096, 0)


def _shared(aims: Aims, name: str, *arguments: Any) -> str:
    """Ask for one that is not there, and make none: it would stay where another layer refuses its removal."""
    found = _gets_in(name, *arguments)
    if str(Path("/proc/self/ns/ipc").readlink()) != aims.ipc:
        raise Refused("it finds none of those outside")
    return found


def _gets_in(name: str, *arguments: Any) -> str:
    try:
        call(name, *arguments)
    except OSError as error:
        if error.errno in _REFUSALS:
            raise
        return f"it got in, and said {errno.errorcode.get(error.errno or 0, str(error.errno))}"
    return "it got in"


PROBES = (
    ("bpf", by_bpf),
    ("answering in the filter's place", by_answering),
    ("performance events", by_events),
    ("keys of the session", by_keys),
    ("a key for the session", by_new_key),
    ("a message queue of System V", by_queue),
    ("a message queue of POSIX", by_named_queue),
    ("shared memory of System V", by_numbered_memory),
)
