"""The filter of system calls: no socket that leads anywhere, and none of the calls by which a seal is got around.

It sees registers, and not the memory that they point to: neither a socket's address nor what clone3 wants.
"""

from __future__ import annotations

import _socket  # the socket module takes longer than the seal
import ctypes
import errno
import os
import sys

from engine.seal.layers import linux, remedies
from engine.seal.layers.bpf import Program
from engine.seal.layers.outcome import Missing, Outcome

try:
    if sys.version_info >= (3, 12):  # hashlib would bring all of OpenSSL
        from _sha2 import sha256
    else:
        from _sha256 import sha256  # type: ignore[import-not-found]
except ImportError:  # built without, so that OpenSSL alone hashes, as distributions do for FIPS
    from hashlib import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from engine.seal.request import Layer, SealRequest, Sockets

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32 = 0x40000000
"""From here on, x86_64 has the numbers of its 32-bit calls."""

# Why a group of calls is refused, with which answer, and its calls. Those that a machine does not have are left out.
REFUSED: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    (
        "makes and connects sockets without the calls that are looked at here",
        errno.EPERM,
        ("io_uring_setup", "io_uring_enter", "io_uring_register"),
    ),
    (
        "reads and steers other processes, or takes their descriptors",
        errno.EPERM,
        ("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd"),
    ),
    ("enters other namespaces, or makes new ones", errno.EPERM, ("setns", "unshare")),
    ("makes namespaces by flags in memory; the C library goes on with clone", errno.ENOSYS, ("clone3",)),
    (
        "uncovers files, and shows others under names that are allowed",
        errno.EPERM,
        (
            *("mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "open_tree_attr"),
            *("fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr"),
        ),
    ),
    ("opens files by number, past every folder", errno.EPERM, ("open_by_handle_at",)),
    ("is told what is done to files of a whole file system", errno.EPERM, ("fanotify_init",)),
    (
        # Of two filters with listeners the newer one's is asked, and may say that a call is to go on: once nobody hears
        # this filter's any more, a process could answer for its own sockets.
        "answers in this filter's place",
        errno.EPERM,
        ("seccomp",),
    ),
    (
        "runs code in the kernel, or looks into it",
        errno.EPERM,
        (
            *("bpf", "perf_event_open", "userfaultfd", "kexec_load", "kexec_file_load", "init_module"),
            *("finit_module", "delete_module", "reboot", "iopl", "ioperm", "syslog"),
        ),
    ),
    ("holds the secrets of a person's session", errno.EPERM, ("add_key", "request_key", "keyctl")),
    (
        "reaches processes outside where the namespace is missing; nothing that trains needs it",
        errno.EPERM,
        (
            *("msgget", "msgsnd", "msgrcv", "msgctl", "shmget", "shmat", "shmctl"),
            *("semget", "semop", "semtimedop", "semctl", "mq_open", "mq_unlink"),
            *("mq_timedsend", "mq_timedreceive", "mq_notify", "mq_getsetattr"),
        ),
    ),
)
NEW_NAMESPACES = 0x7E020000
"""The flags of clone that make a namespace: mount, cgroup, uts, ipc, user, pid, net."""
TERMINAL_INPUT = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX: commands typed into the terminal from which the process was started."""

STEERING: tuple[tuple[str, tuple[tuple[int, int], ...]], ...] = (
    ("prlimit64", ((0, 0),)),
    ("setpriority", ((0, 0), (1, 0))),
    ("ioprio_set", ((0, 1), (1, 0))),
    ("sched_setscheduler", ((0, 0),)),
    ("sched_setparam", ((0, 0),)),
    ("sched_setattr", ((0, 0),)),
)
"""Calls that Landlock lets through to every process of this user, with the arguments, by their place, that name the
caller itself: for others they are refused. A limit on its processor time would end the supervisor, one on its files
blind it. sched_setaffinity is not among them: the C library's threads are given their processors by number."""
ORDERING = ("sched_setscheduler", "sched_setparam", "sched_setattr")
"""Those of them that are said to be done for others, and are not: threads have numbers of their own, and the C library,
which asks so for one whose order was named, even the usual one, does not begin the thread where that is refused."""
LEAVING = ("setsid", "setpgid")
"""Said to be done, and not done: all that a sealed process starts stays in its group, and ends with it (see group.py).
An error would end libraries that only want no Ctrl+C of the terminal for what they start."""
HOLDING = (1024, 1026, 1040)
"""F_SETLEASE, F_NOTIFY and F_SETDELEG of fcntl: whoever opens a file with a lease on it waits for up to 45 s, each time
anew, and the supervisor opens what a trainer wrote."""

UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
STREAM, DATAGRAM, SEQUENCED = 1, 2, 5
_KIND = 0xF
"""The bits of a socket's type that are no flags."""
NETLINK_ROUTE = 0
LOOPBACK_PROTOCOLS = (0, 6, 17)
"""The default, TCP and UDP."""
NOTHING_THERE, REFUSED_SOCKET = errno.ENOENT, errno.EACCES

SEALED_QUESTION = 0x66746E73
"""Option of prctl that no kernel has; a seal answers it with SEALED_ANSWER and which other layers hold with it."""
SEALED_ANSWER = 0xF50
_WITH: dict[Layer, int] = {"namespace": 1, "landlock": 2}

ALLOW, KILL, NOTIFY, ERROR = 0x7FFF0000, 0x80000000, 0x7FC00000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
"""Bytes into what the kernel filters; an argument is 8 bytes long, its low half first on both machines."""
_SET_FILTER, _NEW_LISTENER, _WAIT_KILLABLE = 1, 8, 32


class _Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def restrict(request: SealRequest, others: tuple[Layer, ...]) -> Outcome:
    """Take the filter on, for this process and all it starts; no_new_privs is set already. The kernel's listener for
    refused sockets goes to request.refusals. `others`: the layers that hold already. Raises Missing."""
    if linux.MACHINE not in ARCHITECTURES:
        raise Missing(f"the calls of this machine ({linux.MACHINE}) are not known")
    outcome = Outcome()
    sockets = request.sockets
    if sockets == "loopback" and "namespace" not in others:
        sockets = "none"
        outcome.gaps.append("several processes cannot work together, since the loopback is not their own")
    try:
        filter_, listener = _take_on(sockets, request.refusals is not None, others)
    except OSError as error:
        raise remedies.seccomp_missing(error.errno or 0) from None
    if listener is not None and request.refusals is not None:
        _hand_over(listener, request.refusals)
    outcome.detail = {
        "sockets": sockets,
        "instructions": len(filter_),
        "sha256": sha256(filter_.assembled()).hexdigest(),
        "told": listener is not None,
    }
    return outcome


def holds() -> tuple[Layer, ...] | None:
    """The other layers of the seal that this process was started in; None where it was started in none."""
    try:
        linux.prctl(SEALED_QUESTION)
    except OSError as error:
        if error.errno is not None and error.errno & ~3 == SEALED_ANSWER:
            return tuple(layer for layer, bit in _WITH.items() if error.errno & bit)
    return None


def program(machine: str, sockets: Sockets, told: bool = False, others: tuple[Layer, ...] = ()) -> Program:
    """The filter for `machine`. `told`: refused sockets go to the listener. `others`: the layers that hold already."""
    numbers = linux.NUMBERS[machine]
    filter_ = Program()
    filter_.load(_ARCHITECTURE)
    filter_.equal(ARCHITECTURES[machine], otherwise="kill")
    filter_.load(_NUMBER)
    if machine == "x86_64":
        filter_.at_least(X32, then="kill")
    filter_.equal(numbers["socket"], then="socket")
    filter_.equal(numbers["socketpair"], then="socketpair")
    if sockets == "none":
        filter_.equal(numbers["connect"], then="nothing there")
        filter_.equal(numbers["sendto"], then="sendto")
    filter_.equal(numbers["clone"], then="clone")
    filter_.equal(numbers["ioctl"], then="ioctl")
    filter_.equal(numbers["prctl"], then="prctl")
    filter_.equal(numbers["fcntl"], then="fcntl")
    for name, _ in STEERING:
        filter_.equal(numbers[name], then=name)
    for name in LEAVING:
        filter_.equal(numbers[name], then="said to be done")
    for answer in (errno.EPERM, errno.ENOSYS):
        for name in (name for _, each, names in REFUSED if each == answer for name in names):
            if name in numbers:
                filter_.equal(numbers[name], then=f"refused with {answer}")
    filter_.answer(ALLOW)
    for answer in (errno.EPERM, errno.ENOSYS):
        filter_.label(f"refused with {answer}")
        filter_.answer(ERROR | answer)
    filter_.label("kill")
    filter_.answer(KILL)

    filter_.label("clone")
    filter_.load(_low(0))
    filter_.any_bit(NEW_NAMESPACES, then="clone refused")
    filter_.answer(ALLOW)
    filter_.label("clone refused")
    filter_.answer(ERROR | errno.EPERM)

    for name, refused in (("ioctl", TERMINAL_INPUT), ("fcntl", HOLDING)):
        filter_.label(name)
        filter_.load(_low(1))
        for each in refused:
            filter_.equal(each, then=f"{name} refused")
        filter_.answer(ALLOW)
        filter_.label(f"{name} refused")
        filter_.answer(ERROR | errno.EPERM)

    filter_.label("prctl")
    filter_.load(_low(0))
    filter_.equal(SEALED_QUESTION, otherwise="prctl allowed")
    filter_.answer(ERROR | SEALED_ANSWER | sum(_WITH.get(each, 0) for each in others))
    filter_.label("prctl allowed")
    filter_.answer(ALLOW)

    for name, own in STEERING:
        filter_.label(name)
        for argument, value in own:
            filter_.load(_low(argument))
            filter_.equal(value, otherwise="said to be done" if name in ORDERING else "another's")
        filter_.answer(ALLOW)
    filter_.label("said to be done")
    filter_.answer(ERROR)
    filter_.label("another's")
    filter_.answer(ERROR | errno.EPERM)

    if sockets == "none":
        filter_.label("sendto")
        filter_.load(_low(4))
        filter_.equal(0, otherwise="nothing there")
        filter_.load(_high(4))
        filter_.equal(0, otherwise="nothing there")
        filter_.answer(ALLOW)
        filter_.label("nothing there")
        filter_.answer(ERROR | NOTHING_THERE)

    _say_socketpair(filter_, sockets)
    _say_socket(filter_, sockets, told)
    return filter_


def _say_socketpair(filter_: Program, sockets: Sockets) -> None:
    """A pair of datagram sockets could each send to any address in a sendmsg, which cannot be looked into."""
    filter_.label("socketpair")
    filter_.load(_low(0))
    filter_.equal(UNIX, otherwise="pair refused")
    if sockets == "none":
        _require_kind(filter_, (STREAM, SEQUENCED), "pair")
    filter_.answer(ALLOW)
    filter_.label("pair refused")
    filter_.answer(ERROR | REFUSED_SOCKET)


def _say_socket(filter_: Program, sockets: Sockets, told: bool) -> None:
    filter_.label("socket")
    filter_.load(_low(0))
    filter_.equal(NETLINK, then="netlink")
    if sockets == "none":
        filter_.equal(UNIX, otherwise="socket refused")
        _require_kind(filter_, (STREAM, SEQUENCED), "socket")
        filter_.answer(ALLOW)
    else:
        filter_.equal(UNIX, then="socket allowed")
        filter_.equal(INET, then="internet")
        filter_.equal(INET6, otherwise="socket refused")
        filter_.label("internet")
        filter_.load(_low(2))
        for protocol in LOOPBACK_PROTOCOLS:
            filter_.equal(protocol, then="protocol allowed")
        filter_.answer(NOTIFY if told else ERROR | REFUSED_SOCKET)
        filter_.label("protocol allowed")
        _require_kind(filter_, (STREAM, DATAGRAM), "socket")
        filter_.label("socket allowed")
        filter_.answer(ALLOW)
    filter_.label("netlink")
    filter_.load(_low(2))
    filter_.equal(NETLINK_ROUTE, otherwise="socket refused")
    # It asks for this machine's own addresses, which is no try to leave: nobody is told.
    filter_.answer(ALLOW if sockets == "loopback" else ERROR | REFUSED_SOCKET)
    filter_.label("socket refused")
    filter_.answer(NOTIFY if told else ERROR | REFUSED_SOCKET)


def _require_kind(filter_: Program, kinds: tuple[int, ...], what: str) -> None:
    """Go on for a socket of one of `kinds`, whatever its flags."""
    filter_.load(_low(1))
    filter_.keep_bits(_KIND)
    for kind in kinds[:-1]:
        filter_.equal(kind, then=f"kind of {what} allowed")
    filter_.equal(kinds[-1], otherwise=f"{what} refused")
    filter_.label(f"kind of {what} allowed")


def _low(argument: int) -> int:
    """Where the half of an argument is that the kernel looks at, for those that it takes as 32 bits."""
    return _ARGUMENTS + 8 * argument


def _high(argument: int) -> int:
    return _ARGUMENTS + 8 * argument + 4


def _take_on(sockets: Sockets, told: bool, others: tuple[Layer, ...]) -> tuple[Program, int | None]:
    """The filter that holds, and the kernel's listener for it, if one is wanted and the kernel has it: some have none
    (before 5.0), and a process can have but one (a container's may be the first). Raises OSError."""
    if told:
        filter_ = program(linux.MACHINE, sockets, True, others)
        for flags in (_NEW_LISTENER | _WAIT_KILLABLE, _NEW_LISTENER):
            try:
                return filter_, _install(filter_, flags)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EBUSY):
                    raise
    filter_ = program(linux.MACHINE, sockets, False, others)
    _install(filter_, 0)
    return filter_, None


def _install(filter_: Program, flags: int) -> int:
    given = _Filter(len(filter_), filter_.assembled())
    return linux.call("seccomp", _SET_FILTER, flags, ctypes.byref(given))


def _hand_over(listener: int, refusals: int) -> None:
    opened = _socket.socket(fileno=refusals)
    descriptor = listener.to_bytes(4, sys.byteorder)
    opened.sendmsg([b"listener"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptor)])
    opened.detach()
    os.close(listener)
