"""No process that is sealed holds a capability, and none gains one at an exec: not from files, not from being root.

One exception: root of the machine itself keeps those by which it reads and writes files of others, since what root
trains may be theirs. Landlock and the masks hold for it all the same.
"""

from __future__ import annotations

import ctypes

from engine.seal.layers import linux

DAC_OVERRIDE, FOWNER, SETPCAP, SYS_ADMIN = 1, 3, 8, 21
_ROOT_KEEPS = (DAC_OVERRIDE, FOWNER)
"""CAP_DAC_READ_SEARCH is not needed beside DAC_OVERRIDE, and opens files by their handle, past masks and Landlock."""
_NO_NEW_PRIVILEGES, _BOUNDING_READ, _BOUNDING_DROP, _SECURE_BITS, _AMBIENT = 38, 23, 24, 28, 47
_AMBIENT_RAISE, _AMBIENT_CLEAR = 2, 4
# NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE, each with its lock, and KEEP_CAPS locked as it is: off.
_LOCKED_BITS = 0b11_10_11_11
_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Sets(ctypes.Structure):
    _fields_ = [
        (f"{name}_{half}", ctypes.c_uint32) for half in (0, 1) for name in ("effective", "permitted", "inherited")
    ]


def effective() -> int:
    """The capabilities that count now, as bits; 0 where the kernel does not say."""
    try:
        with open("/proc/self/status", "rb") as status:
            for line in status:
                if line.startswith(b"CapEff:"):
                    return int(line.split()[1], 16)
    except OSError:
        pass
    return 0


def holds(capability: int) -> bool:
    return bool(effective() >> capability & 1)


def drop_all(as_root: bool) -> None:
    """Drop every capability and lock that; `as_root`: but for those that root keeps, which outlive exec. Sets
    no_new_privs too. Raises OSError where what is held cannot be dropped."""
    kept = [each for each in _ROOT_KEEPS if as_root and holds(each)]
    if holds(SETPCAP):
        for capability in range(64):
            try:
                linux.prctl(_BOUNDING_READ, capability)
            except OSError:
                break  # the kernel knows no more
            if capability not in kept:
                linux.prctl(_BOUNDING_DROP, capability)
    bits = sum(1 << each for each in kept)
    if kept:
        _set(effective() & (bits | 1 << SETPCAP), bits)
    try:
        linux.prctl(_AMBIENT, _AMBIENT_CLEAR)
        for each in kept:
            linux.prctl(_AMBIENT, _AMBIENT_RAISE, each)
        linux.prctl(_SECURE_BITS, _LOCKED_BITS)
    except OSError:
        pass  # SETPCAP is not held, or the bits are locked already; no_new_privs keeps root from gaining any then
    linux.prctl(_NO_NEW_PRIVILEGES, 1)
    _set(bits, bits)


def _set(held: int, inherited: int) -> None:
    low = 0xFFFFFFFF
    halves = ((held & low,) * 2 + (inherited & low,)) + ((held >> 32,) * 2 + (inherited >> 32,))
    linux.call("capset", ctypes.byref(_Header(_VERSION_3, 0)), ctypes.byref(_Sets(*halves)))
