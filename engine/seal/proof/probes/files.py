"""Out by files: keys that open the way later, files that others run or send, devices that lead around all of it.

Of the person's files none is read or written: they are opened and closed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from engine.seal.proof.probes.aims import Aims
from engine.seal.proof.probes.calls import Refused, Skip, call

_SET_LEASE = 1024
# Run or read by others, where this user may write.
_RUN_BY_OTHERS = (
    *("/etc", "/etc/cron.d", "/etc/profile.d", "/etc/systemd/system", "/usr/local/bin", "/var/spool/cron"),
    *("/var/spool/cron/crontabs", "/var/mail", "/var/spool/mail"),
)
# Whatever is written there the kernel runs, or does, outside.
_OF_THE_KERNEL = (
    *("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hotplug"),
    *("/proc/sysrq-trigger", "/sys/kernel/uevent_helper", "/sys/fs/cgroup/cgroup.procs"),
)


def by_secret(aims: Aims) -> str:
    found = (Path(aims.folder) / "secret").read_text(encoding="ascii")
    if found.strip() != aims.nonce:
        raise Refused("another file is there")
    return "read"


def by_writing(aims: Aims) -> str:
    with (Path(aims.folder) / "secret").open("a", encoding="ascii") as file:
        file.write("")
    return "opened for writing"


def by_making(aims: Aims) -> str:
    """A file in a folder outside. The caller looks whether it came out."""
    (Path(aims.folder) / f"made-{os.getpid()}").touch()
    return "made"


def by_link(aims: Aims) -> str:
    """A symbolic link in the run's own folder to a file outside of it."""
    return _within(aims, lambda at: at.symlink_to(f"{aims.folder}/secret"), lambda at: os.open(at, os.O_RDONLY))


def by_hard_link(aims: Aims) -> str:
    return _within(aims, lambda at: at.hardlink_to(f"{aims.folder}/secret"), lambda at: os.open(at, os.O_RDONLY))


def by_handle(aims: Aims) -> str:
    """A file by its number on the disk, without a path."""
    try:
        call("open_by_handle_at", os.open("/", os.O_RDONLY), b"\x08\0\0\0\x01\0\0\0" + bytes(8), os.O_RDONLY)
    except OSError as error:
        if error.errno != errno.ESTALE:  # no file has this number, but others would have been opened
            raise
    return "it got in"


def by_homes(aims: Aims) -> str:
    if not aims.homes:
        raise Skip("there are none")
    return _opened(aims.homes, os.O_RDONLY)


def by_startup(aims: Aims) -> str:
    if not aims.startup:
        raise Skip("there are none")
    return _opened(aims.startup, os.O_WRONLY | os.O_APPEND)


def by_others_folders(aims: Aims) -> str:
    """A file that has no name yet, in folders from which others run or send: it is gone when closed."""
    there = [folder for folder in _RUN_BY_OTHERS if Path(folder).is_dir()]
    return _opened(there, os.O_TMPFILE | os.O_WRONLY)


def by_kernel_files(aims: Aims) -> str:
    return _opened(_OF_THE_KERNEL, os.O_WRONLY)


def by_shared_memory(aims: Aims) -> str:
    if not aims.shared_memory:
        raise Skip("there is no /dev/shm")
    os.open(aims.shared_memory, os.O_RDWR)
    return "opened"


def by_devices(aims: Aims) -> str:
    if not aims.devices:
        raise Skip("there are none")
    return _opened(aims.devices, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)


def by_lease(aims: Aims) -> str:
    """Whoever opens a file with a lease on it is held up for 45 s: those, too, who watch over this process."""
    import fcntl

    def hold(at: Path) -> int:
        held = os.open(at, os.O_RDONLY)
        fcntl.fcntl(held, _SET_LEASE, fcntl.F_RDLCK)
        return held

    return _within(aims, lambda at: at.touch(0o600), hold)


def by_making_a_device(aims: Aims) -> str:
    """In the run's own folder; the one made here is /dev/null's, a disk's would be made alike."""
    return _within(
        aims,
        lambda at: os.mknod(at, 0o600 | stat.S_IFCHR, os.makedev(1, 3)),
        lambda at: os.open(at, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY),
    )


def by_mounting(aims: Aims) -> str:
    """Covering what is shown with something else. Without a kind of file system: nothing is mounted either way."""
    return _reaches_its_arguments("mount", b"none", os.fsencode(aims.writable or "/proc"), None, 0, None)


def by_newer_mounting(aims: Aims) -> str:
    call("fsopen", b"tmpfs", 0)
    return "opened"


def by_uncovering(aims: Aims) -> str:
    """Taking away what covers the files of others. Of a folder on which nothing is mounted: nothing is taken."""
    return _reaches_its_arguments("umount2", b"/proc/self", 0)


def _reaches_its_arguments(name: str, *arguments: Any) -> str:
    """Of a call that is asked for what cannot be: whether the kernel looked at that, and would have done another."""
    try:
        call(name, *arguments)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return "it got in"


def _opened(paths: Iterable[str], flags: int) -> str:
    """Which of the files can be opened. Raises the last refusal when none can."""
    found, refused = [], OSError(2, "none is there")
    for path in paths:
        try:
            os.close(os.open(path, flags))
            found.append(path)
        except OSError as error:
            refused = error
    if not found:
        raise refused
    home = os.path.expanduser("~")  # noqa: PTH111 -- "~" for a user who has none
    return ", ".join(path.replace(home, "~", 1) if path.startswith(f"{home}/") else path for path in found)


def _within(aims: Aims, make: Callable[[Path], None], use: Callable[[Path], int]) -> str:
    if not aims.writable:
        raise Skip("no folder is opened for writing")
    at = Path(aims.writable) / f".probe-{os.getpid()}"
    make(at)
    try:
        use(at)
    finally:
        at.unlink()
    return "opened"


PROBES = (
    ("a secret outside", by_secret),
    ("a secret outside, by a link", by_link),
    ("a secret outside, by a hard link", by_hard_link),
    ("a secret outside, by its number", by_handle),
    ("writing to a file outside", by_writing),
    ("a new file outside", by_making),
    ("keys in the home folder", by_homes),
    ("what runs at the next log-in", by_startup),
    ("folders from which others run", by_others_folders),
    ("settings of the kernel", by_kernel_files),
    ("shared memory of another process", by_shared_memory),
    ("devices of disks and networks", by_devices),
    ("a device made anew", by_making_a_device),
    ("holding up who opens a file (a lease)", by_lease),
    ("mounting", by_mounting),
    ("mounting by the newer calls", by_newer_mounting),
    ("uncovering what is covered", by_uncovering),
)
