"""System calls by number, as a program makes them that goes around Python and its guard."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import Any

_C = ctypes.CDLL(None, use_errno=True)
_C.syscall.restype = ctypes.c_long

MACHINE = platform.machine()
# Numbers of its own, and not the filter's (layers/linux.py): a slip in those would be tried and refused alike.
_COMMON = {
    **{"pidfd_open": 434, "pidfd_getfd": 438, "clone3": 435},
    **{"io_uring_setup": 425, "io_uring_enter": 426, "fsopen": 430},
}
_NUMBERS: dict[str, dict[str, int]] = {
    "x86_64": _COMMON
    | {
        **{"shmget": 29, "socket": 41, "connect": 42, "clone": 56, "msgget": 68},
        **{"ptrace": 101, "mount": 165, "umount2": 166, "mq_open": 240, "add_key": 248},
        **{"keyctl": 250, "unshare": 272, "perf_event_open": 298, "open_by_handle_at": 304, "setns": 308},
        **{"process_vm_readv": 310, "prlimit64": 302, "seccomp": 317, "bpf": 321},
    },
    "aarch64": _COMMON
    | {
        **{"umount2": 39, "mount": 40, "unshare": 97, "ptrace": 117, "mq_open": 180},
        **{"msgget": 186, "shmget": 194, "socket": 198, "connect": 203},
        **{"add_key": 217, "keyctl": 219, "clone": 220, "perf_event_open": 241, "open_by_handle_at": 265},
        **{"setns": 268, "process_vm_readv": 270, "prlimit64": 261, "seccomp": 277, "bpf": 280},
    },
}


class Skip(Exception):
    """This way cannot be tried on this machine: why, in words."""


class Refused(Exception):
    """This way was refused in a manner that has no number of the kernel's: how, in words."""


def call(name: str, *arguments: Any) -> int:
    """A system call. Raises OSError with the kernel's answer, Skip where its number is not known here."""
    numbers = _NUMBERS.get(MACHINE)
    if numbers is None:
        raise Skip(f"made for x86_64 and aarch64, and this is {MACHINE}")
    result = _C.syscall(
        ctypes.c_long(numbers[name]), *(ctypes.c_long(each) if isinstance(each, int) else each for each in arguments)
    )
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def ipv4_address(host: str, port: int) -> bytes:
    """A struct sockaddr_in."""
    return struct.pack("=H", 2) + struct.pack(">H", port) + bytes(map(int, host.split("."))) + bytes(8)
