"""Calls of the Linux kernel that Python has no function for, by number and checked. x86_64 and aarch64."""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)

MACHINE = os.uname().machine

# Where a system call has a number on one machine only, it is not there on the other. 424 and above are the same on all.
_SINCE_424 = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "clone3": 435,
    "close_range": 436,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
    "open_tree_attr": 467,
}
NUMBERS: dict[str, dict[str, int]] = {
    "x86_64": {
        "ioctl": 16,
        "shmget": 29,
        "shmat": 30,
        "shmctl": 31,
        "socket": 41,
        "connect": 42,
        "sendto": 44,
        "socketpair": 53,
        "clone": 56,
        "semget": 64,
        "semop": 65,
        "semctl": 66,
        "msgget": 68,
        "msgsnd": 69,
        "msgrcv": 70,
        "msgctl": 71,
        "fcntl": 72,
        "ptrace": 101,
        "syslog": 103,
        "capset": 126,
        "setpgid": 109,
        "setsid": 112,
        "setpriority": 141,
        "sched_setparam": 142,
        "sched_setscheduler": 144,
        "pivot_root": 155,
        "prctl": 157,
        "chroot": 161,
        "mount": 165,
        "umount2": 166,
        "reboot": 169,
        "iopl": 172,
        "ioperm": 173,
        "init_module": 175,
        "delete_module": 176,
        "semtimedop": 220,
        "mq_open": 240,
        "mq_unlink": 241,
        "mq_timedsend": 242,
        "mq_timedreceive": 243,
        "mq_notify": 244,
        "mq_getsetattr": 245,
        "kexec_load": 246,
        "add_key": 248,
        "request_key": 249,
        "keyctl": 250,
        "ioprio_set": 251,
        "unshare": 272,
        "perf_event_open": 298,
        "fanotify_init": 300,
        "prlimit64": 302,
        "open_by_handle_at": 304,
        "setns": 308,
        "process_vm_readv": 310,
        "process_vm_writev": 311,
        "finit_module": 313,
        "sched_setattr": 314,
        "seccomp": 317,
        "kexec_file_load": 320,
        "bpf": 321,
        "userfaultfd": 323,
        **_SINCE_424,
    },
    "aarch64": {
        "fcntl": 25,
        "ioctl": 29,
        "ioprio_set": 30,
        "umount2": 39,
        "mount": 40,
        "pivot_root": 41,
        "chroot": 51,
        "capset": 91,
        "unshare": 97,
        "kexec_load": 104,
        "init_module": 105,
        "delete_module": 106,
        "syslog": 116,
        "ptrace": 117,
        "sched_setparam": 118,
        "sched_setscheduler": 119,
        "setpriority": 140,
        "setpgid": 154,
        "setsid": 157,
        "reboot": 142,
        "prctl": 167,
        "mq_open": 180,
        "mq_unlink": 181,
        "mq_timedsend": 182,
        "mq_timedreceive": 183,
        "mq_notify": 184,
        "mq_getsetattr": 185,
        "msgget": 186,
        "msgctl": 187,
        "msgrcv": 188,
        "msgsnd": 189,
        "semget": 190,
        "semctl": 191,
        "semtimedop": 192,
        "semop": 193,
        "shmget": 194,
        "shmctl": 195,
        "shmat": 196,
        "socket": 198,
        "socketpair": 199,
        "connect": 203,
        "sendto": 206,
        "add_key": 217,
        "request_key": 218,
        "keyctl": 219,
        "clone": 220,
        "perf_event_open": 241,
        "prlimit64": 261,
        "fanotify_init": 262,
        "open_by_handle_at": 265,
        "setns": 268,
        "process_vm_readv": 270,
        "process_vm_writev": 271,
        "finit_module": 273,
        "sched_setattr": 274,
        "seccomp": 277,
        "bpf": 280,
        "userfaultfd": 282,
        "kexec_file_load": 294,
        **_SINCE_424,
    },
}

_libc.syscall.restype = ctypes.c_long


def call(name: str, *arguments: object) -> int:
    """System call `name`: integers and pointers as they are. Raises OSError as the kernel answers; ENOSYS where this
    machine's numbers are unknown."""
    number = NUMBERS.get(MACHINE, {}).get(name, -1)
    whole = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *whole), name)


def prctl(option: int, *arguments: int) -> int:
    """Raises OSError."""
    four = [ctypes.c_ulong(each) for each in (*arguments, 0, 0, 0, 0)[:4]]
    return _checked(_libc.prctl(option, *four), "prctl")


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """Raises OSError with `target` as its file."""
    _checked(_libc.mount(_bytes(source), _bytes(target), _bytes(kind), ctypes.c_ulong(flags), _bytes(options)), target)


def control(descriptor: int, request: int, argument: ctypes.Structure) -> None:
    """ioctl; fcntl's takes no structure and costs an import. Raises OSError."""
    _checked(_libc.ioctl(descriptor, ctypes.c_ulong(request), ctypes.byref(argument)), "ioctl")


def open_socket(family: int, kind: int) -> int:
    """A descriptor. Raises OSError."""
    return _checked(_libc.socket(family, kind, 0), "socket")


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def _checked(answer: int, what: str) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return answer
