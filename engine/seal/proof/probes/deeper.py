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
_IPC_RMID = 0
_SESSION_KEYRING = -3
_NUMBER = 0x66696E65
# IPC_CREAT and IPC_EXCL: one that another program has is left alone.
_NEW = 0o3600


def by_bpf(aims: Aims) -> str:
    return _gets_in("bpf", 0, None, 0)


def by_events(aims: Aims) -> str:
    return _gets_in("perf_event_open", None, 0, -1, -1, 0)


def by_keys(aims: Aims) -> str:
    """Keys that the kernel holds for the person's session: of network drives and encrypted disks."""
    return _gets_in("keyctl", 6, _SESSION_KEYRING, None, 0)


def by_new_key(aims: Aims) -> str:
    return _gets_in("add_key", None, None, None, 0, _SESSION_KEYRING)


def by_queue(aims: Aims) -> str:
    """A message queue by its number, which another process may ask for too."""
    queue = call("msgget", _NUMBER, _NEW)
    call("msgctl", queue, _IPC_RMID, None)
    return _shared(aims)


def by_named_queue(aims: Aims) -> str:
    name = f"finetui-{aims.nonce}".encode()
    os.close(call("mq_open", name, os.O_CREAT | os.O_RDWR, 0o600, None))
    call("mq_unlink", name)
    return _shared(aims)


def by_numbered_memory(aims: Aims) -> str:
    memory = call("shmget", _NUMBER, 4096, _NEW)
    call("shmctl", memory, _IPC_RMID, None)
    return _shared(aims)


def _gets_in(name: str, *arguments: Any) -> str:
    try:
        call(name, *arguments)
    except OSError as error:
        if error.errno in _REFUSALS:
            raise
        return f"it got in, and said {errno.errorcode.get(error.errno or 0, str(error.errno))}"
    return "it got in"


def _shared(aims: Aims) -> str:
    if str(Path("/proc/self/ns/ipc").readlink()) != aims.ipc:
        raise Refused("nobody outside sees it")
    return "one was made that others see"


PROBES = (
    ("bpf", by_bpf),
    ("performance events", by_events),
    ("keys of the session", by_keys),
    ("a key for the session", by_new_key),
    ("a message queue of System V", by_queue),
    ("a message queue of POSIX", by_named_queue),
    ("shared memory of System V", by_numbered_memory),
)
