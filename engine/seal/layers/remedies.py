"""Why a machine refuses a layer, and what its administrator may do about it. Read only where a layer is missing."""

from __future__ import annotations

import errno
import os

from engine.seal.layers.outcome import Missing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PROFILE = "a filter of system calls that finetui was started under, as containers have, refuses "
_NO_PROFILE = "start the container with --security-opt seccomp=unconfined, or with a profile that allows "
_LANDLOCK_SINCE = (5, 13)


def read_file(path: str) -> str:
    """Its text; "" where it cannot be read."""
    try:
        with open(path) as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def namespace_missing(answer: int, read: Callable[[str], str] = read_file) -> Missing:
    """What `answer`, the kernel's error number for a new namespace, means on the machine whose files `read` returns."""
    if answer in (errno.EPERM, errno.EACCES):
        if read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
            return Missing("this machine keeps user namespaces for root", _set("kernel.unprivileged_userns_clone=1"))
        if read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
            fix = _set("kernel.apparmor_restrict_unprivileged_userns=0")
            return Missing("AppArmor restricts user namespaces here, as Ubuntu sets it up", fix)
        if _is_filtered(read):
            return Missing(_PROFILE + "new namespaces", _NO_PROFILE + "unshare and mount")
        return Missing("this machine refuses user namespaces", "")
    if answer in (errno.ENOSPC, errno.EUSERS):
        for kind in ("user", "net", "mnt", "ipc"):
            if read(f"/proc/sys/user/max_{kind}_namespaces") == "0":
                fix = _set(f"user.max_{kind}_namespaces=10000")
                return Missing(f"this machine allows no {kind} namespaces", fix)
        return Missing("this machine has as many namespaces as it allows", _set("user.max_user_namespaces=10000"))
    if answer in (errno.ENOSYS, errno.EINVAL):
        fix = "Linux built with CONFIG_USER_NS, CONFIG_NET_NS and CONFIG_IPC_NS"
        return Missing("this kernel has no user and network namespaces", fix)
    return Missing(f"the kernel answered: {os.strerror(answer)}")


def landlock_missing(answer: int, read: Callable[[str], str] = read_file) -> Missing:
    """What `answer`, the kernel's error number for the version of its Landlock, means."""
    if answer == errno.EOPNOTSUPP:
        others = read("/sys/kernel/security/lsm") or "..."
        return Missing(
            "this kernel has Landlock, but was started without it",
            f'add "lsm=landlock,{others}" to the kernel\'s parameters and start the machine anew',
        )
    known = _release(read("/proc/sys/kernel/osrelease"))
    if known < _LANDLOCK_SINCE:
        return Missing("this kernel is too old for Landlock", "Linux 5.13 or newer")
    if answer in (errno.EPERM, errno.EACCES, errno.ENOSYS) and _is_filtered(read):
        return Missing(_PROFILE + "Landlock", _NO_PROFILE + "the calls of Landlock")
    if answer == errno.ENOSYS:
        return Missing("this kernel was built without Landlock", "Linux built with CONFIG_SECURITY_LANDLOCK")
    return Missing(f"the kernel answered: {os.strerror(answer)}")


def seccomp_missing(answer: int) -> Missing:
    """What `answer`, the kernel's error number for a filter, means."""
    if answer in (errno.ENOSYS, errno.EINVAL):
        fix = "Linux built with CONFIG_SECCOMP_FILTER"
        return Missing("this kernel has no filters of system calls", fix)
    return Missing(f"the kernel answered: {os.strerror(answer)}")


def _set(setting: str) -> str:
    """So that it outlives a restart."""
    return f"echo {setting} | sudo tee /etc/sysctl.d/60-finetui.conf && sudo sysctl --system"


def _is_filtered(read: Callable[[str], str]) -> bool:
    return "\nSeccomp:\t2" in read("/proc/self/status")


def _release(text: str) -> tuple[int, ...]:
    """(6, 8) of "6.8.0-45-generic"."""
    parts = text.split(".")[:2]
    return tuple(int(part) for part in parts if part.isdecimal())
