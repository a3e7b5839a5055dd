"""Out by way of other processes: their memory, their environment, their descriptors, their namespaces."""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from pathlib import Path

from engine.seal.proof.probes.aims import Aims
from engine.seal.proof.probes.calls import Refused, Skip, call

_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_NEWNS = 0x10000000, 0x40000000, 0x20000
_PTRACE_SEIZE = 0x4206
_SIGCHLD = 17


def by_tracing(aims: Aims) -> str:
    call("ptrace", _PTRACE_SEIZE, _bystander(aims), None, None)
    return "seized"


def by_reading_memory(aims: Aims) -> str:
    buffer = ctypes.create_string_buffer(1)
    ours = struct.pack("PN", ctypes.addressof(buffer), 1)
    theirs = struct.pack("PN", 0x1000, 1)
    try:
        call("process_vm_readv", _bystander(aims), ours, 1, theirs, 1, 0)
    except OSError as error:
        if error.errno != 14:  # EFAULT: only the address was wrong
            raise
    return "its memory may be read"


def by_memory_file(aims: Aims) -> str:
    os.open(f"/proc/{_bystander(aims)}/mem", os.O_RDWR)
    return "opened"


def by_environment(aims: Aims) -> str:
    found = Path(f"/proc/{_bystander(aims)}/environ").read_bytes()
    if aims.nonce.encode() not in found:
        raise Refused("it is empty")
    return "read"


def by_root_folder(aims: Aims) -> str:
    """Another process's view of the file system, where nothing is covered."""
    os.open(f"/proc/{_bystander(aims)}/root{aims.folder}/secret", os.O_RDONLY)
    return "opened"


def by_descriptor(aims: Aims) -> str:
    handle = call("pidfd_open", _bystander(aims), 0)
    call("pidfd_getfd", handle, 0, 0)
    return "taken"


def by_joining(aims: Aims) -> str:
    """Back into the network namespace outside."""
    call("setns", os.open(f"/proc/{_bystander(aims)}/ns/net", os.O_RDONLY), _CLONE_NEWNET)
    return "joined"


def by_joining_by_pidfd(aims: Aims) -> str:
    call("setns", call("pidfd_open", _bystander(aims), 0), _CLONE_NEWNET)
    return "joined"


def by_signal(aims: Aims) -> str:
    os.kill(_bystander(aims), 0)
    return "it may be signalled"


def by_limits(aims: Aims) -> str:
    """The limits of another process: who may read them may set them, so that it ends or opens nothing."""
    call("prlimit64", _bystander(aims), resource.RLIMIT_NOFILE, None, ctypes.create_string_buffer(16))
    return "read"


def by_priority(aims: Aims) -> str:
    """Set to what it is."""
    os.setpriority(os.PRIO_PROCESS, _bystander(aims), os.getpriority(os.PRIO_PROCESS, _bystander(aims)))
    return "set"


def by_unshare(aims: Aims) -> str:
    """A namespace within the seal, in which this process would have every right."""
    call("unshare", _CLONE_NEWUSER | _CLONE_NEWNET)
    return "made"


def by_clone(aims: Aims) -> str:
    if call("clone", _CLONE_NEWUSER | _SIGCHLD, None, None, None, None) == 0:
        os._exit(0)
    return "made"


def by_clone3(aims: Aims) -> str:
    arguments = struct.pack("11Q", _CLONE_NEWUSER, 0, 0, 0, _SIGCHLD, 0, 0, 0, 0, 0, 0)
    if call("clone3", arguments, len(arguments)) == 0:
        os._exit(0)
    return "made"


def by_crash(aims: Aims) -> str:
    """What crashed is handed, with all its memory, to a program outside, or left as a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    # A limit of 1 byte is the one that stops the kernel from starting the program (fs/coredump.c).
    if hard == 1 or (hard == 0 and not Path("/proc/sys/kernel/core_pattern").read_bytes().startswith(b"|")):
        raise Refused(f"limited to {hard} byte{'' if hard == 1 else 's'}")
    return f"limited to {soft} bytes, which may be raised to {hard}"


def by_leaving(aims: Aims) -> str:
    """A session of one's own, to live on in when the process that began it is ended."""
    before = os.getsid(0)
    os.setsid()
    if os.getsid(0) == before:
        raise Refused("said to be made, and not made")
    return "made"


def by_new_rights(aims: Aims) -> str:
    """Programs that run with another user's rights."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    if "NoNewPrivs:\t1" in status:
        raise Refused("no_new_privs is set")
    return "no_new_privs is not set"


def _bystander(aims: Aims) -> int:
    if aims.bystander is None:
        raise Skip("there is no process to aim at")
    return aims.bystander


PROBES = (
    ("ptrace of a process outside", by_tracing),
    ("memory of a process outside", by_reading_memory),
    ("memory of a process outside, as a file", by_memory_file),
    ("environment of a process outside", by_environment),
    ("root folder of a process outside", by_root_folder),
    ("a descriptor taken from a process outside", by_descriptor),
    ("joining the network outside", by_joining),
    ("joining the network outside, by a process's handle", by_joining_by_pidfd),
    ("signals to a process outside", by_signal),
    ("limits of a process outside", by_limits),
    ("priority of a process outside", by_priority),
    ("a namespace of one's own (unshare)", by_unshare),
    ("a namespace of one's own (clone)", by_clone),
    ("a namespace of one's own (clone3)", by_clone3),
    ("a session of one's own", by_leaving),
    ("memory handed over by a crash", by_crash),
    ("set-user-ID programs", by_new_rights),
)
