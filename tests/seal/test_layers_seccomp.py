"""The filter of system calls, run over calls as a kernel would and compared with what is meant; and on this kernel."""

from __future__ import annotations

import errno
import itertools
import os
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from launching import Account
from test_layers import require_here

from engine.seal.layers import linux, seccomp
from engine.seal.layers.bpf import Program

ALLOW, KILL, NOTIFY = 0x7FFF0000, 0x80000000, 0x7FC00000
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
OTHER_ARCHITECTURES = (0x40000003, 0x40000028, 0xC00000F3)
MODES = list(itertools.product(MACHINES, ("none", "loopback"), (False, True)))

words = st.integers(0, 2**32 - 1)
# What is in a register, with and without something in the half that the kernel drops of an int.
telling = [
    0,
    1,
    2,
    3,
    5,
    6,
    10,
    16,
    17,
    40,
    262,
    1024,
    1026,
    1040,
    0x5412,
    0x541C,
    0x10000000,
    0x40000000,
    0x80,
    0x66746E73,
    0x801,
    0x80005,
]
registers = st.one_of(
    st.sampled_from(telling),
    st.builds(lambda low, high: low | high << 32, st.sampled_from(telling), words),
    st.integers(0, 2**64 - 1),
)


def run(program: bytes, number: int, architecture: int, arguments: tuple[int, ...]) -> int:
    """What the kernel's machine answers, after net/core/filter.c. Every jump must stay within the program."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *arguments)
    instructions = list(struct.iter_unpack("HBBI", program))
    held, at = 0, 0
    while True:
        code, then, otherwise, value = instructions[at]
        at += 1
        if code == 0x20:  # load a word
            (held,) = struct.unpack_from("<I", data, value)
        elif code == 0x54:  # and
            held &= value
        elif code == 0x06:  # return
            return value
        else:
            true = {0x15: held == value, 0x35: held >= value, 0x45: bool(held & value)}[code]
            at += then if true else otherwise


def meant(machine: str, sockets: str, told: bool, number: int, architecture: int, arguments: tuple[int, ...]) -> Any:
    """ "allow", "kill", "notify", or an error number, by rules that know nothing of the filter."""
    if architecture != MACHINES[machine] or (machine == "x86_64" and number >= 0x40000000):
        return "kill"
    name = {known: name for name, known in linux.NUMBERS[machine].items()}.get(number)
    first, second, third = (each & 0xFFFFFFFF for each in arguments[:3])
    refused = "notify" if told else errno.EACCES
    if name == "socket":
        kind = second & 0xF
        if first == 16 and third == 0:
            return "allow" if sockets == "loopback" else errno.EACCES
        if first == 1:
            return "allow" if sockets == "loopback" or kind in (1, 5) else refused
        internet = first in (2, 10) and kind in (1, 2) and third in (0, 6, 17)
        return "allow" if sockets == "loopback" and internet else refused
    if name == "socketpair":
        return "allow" if first == 1 and (sockets == "loopback" or second & 0xF in (1, 5)) else errno.EACCES
    if name == "connect" and sockets == "none":
        return errno.ENOENT
    if name == "sendto" and sockets == "none":
        return errno.ENOENT if arguments[4] else "allow"
    if name == "clone":
        # mount, cgroup, uts, ipc, user, pid, net
        return errno.EPERM if first & 0x7E020000 else "allow"
    if name == "ioctl":
        return errno.EPERM if second in (0x5412, 0x541C) else "allow"
    if name == "fcntl":
        return errno.EPERM if second in (1024, 1026, 1040) else "allow"
    if name in ("setsid", "setpgid"):
        return 0
    if name in OWN:
        another = 0 if name.startswith("sched_") else errno.EPERM
        return "allow" if (first, second)[: len(OWN[name])] == OWN[name] else another
    if name == "prctl":
        return 0xF50 | 3 if first == 0x66746E73 else "allow"
    if name in ALLOWED or name is None:
        return "allow"
    return errno.ENOSYS if name == "clone3" else errno.EPERM


# What the launcher itself needs of the numbers, or what every program does.
ALLOWED = {"connect", "sendto", "capset", "close_range", "landlock_create_ruleset", "landlock_add_rule"} | {
    "landlock_restrict_self"
}
# Of what steers any process: the arguments by which it is the caller itself.
OWN = {"prlimit64": (0,), "setpriority": (0, 0), "ioprio_set": (1, 0)} | dict.fromkeys(
    ("sched_setscheduler", "sched_setparam", "sched_setattr"), (0,)
)


@pytest.mark.parametrize(("machine", "sockets", "told"), MODES)
@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_the_filter_answers_as_it_is_meant_to(machine: str, sockets: Any, told: bool, data: st.DataObject):
    program = seccomp.program(machine, sockets, told, ("namespace", "landlock")).assembled()
    known = linux.NUMBERS[machine]
    number = data.draw(st.one_of(st.sampled_from(sorted(known.values())), st.integers(0, 600), words))
    architecture = data.draw(st.sampled_from([MACHINES[machine]] * 9 + [*MACHINES.values(), *OTHER_ARCHITECTURES]))
    arguments = tuple(data.draw(st.tuples(*[registers] * 6)))
    answer = run(program, number, architecture, arguments)
    named = {ALLOW: "allow", KILL: "kill", NOTIFY: "notify"}.get(answer, answer - 0x50000)
    assert named == meant(machine, sockets, told, number, architecture, arguments)


@pytest.mark.parametrize(("machine", "sockets", "told"), MODES)
def test_every_instruction_is_of_use_and_the_kernels_limits_are_kept(machine: str, sockets: Any, told: bool):
    """An instruction that no call can come to is a slip in a label."""
    program = seccomp.program(machine, sockets, told)
    instructions = list(struct.iter_unpack("HBBI", program.assembled()))
    reached, waiting = set(), [0]
    while waiting:
        at = waiting.pop()
        if at in reached:
            continue
        reached.add(at)
        code, then, otherwise, _ = instructions[at]
        if code != 0x06:
            waiting += [at + 1 + then, at + 1 + otherwise] if code & 7 == 5 else [at + 1]
    assert reached == set(range(len(program))) and len(program) <= 4096


def test_a_jump_that_is_too_long_is_no_program():
    program = Program()
    program.equal(1, then="far")
    for _ in range(256):
        program.load(0)
    program.label("far")
    program.answer(0)
    with pytest.raises(AssertionError, match="far"):
        program.assembled()


@pytest.mark.parametrize(
    ("machine", "header"),
    [("x86_64", "x86_64-linux-gnu/asm/unistd_64.h"), ("aarch64", "asm-generic/unistd.h")],
)
def test_the_numbers_are_the_kernels(machine: str, header: str):
    path = Path("/usr/include", header)
    if not path.exists():
        pytest.skip(f"{path} is not installed")
    said = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text())}
    ours = linux.NUMBERS[machine]
    compared = {name: number for name, number in ours.items() if name in said}
    assert compared == {name: said[name] for name in compared}
    assert {name for name in ours if name not in said} <= {"open_tree_attr", "open_by_handle_at"}
    # And the other way about: each call that is refused is known on each machine that has it.
    refused = {name for _, _, names in seccomp.REFUSED for name in names}
    assert {name for name in refused if name in said and name not in ours} == set()


LOOPBACK = """
import json, socket
with socket.create_server(("127.0.0.1", 0)) as server:
    with socket.create_connection(server.getsockname()) as ours, server.accept()[0] as theirs:
        ours.sendall(b"within"); print(json.dumps(theirs.recv(10).decode()))
"""


def test_a_loopback_is_shared_within_and_needs_its_namespace(somebody: Account):
    require_here("namespace", "seccomp")
    wanted = {"request": {"sockets": "loopback"}}
    assert somebody.sealed(LOOPBACK, **wanted).answer == "within"
    alone = somebody.sealed(LOOPBACK, only=["seccomp"], **wanted)
    seccomp_layer = alone.report.layers[-1]
    assert "PermissionError" in alone.errors and seccomp_layer.detail["sockets"] == "none" and seccomp_layer.why


def test_terminals_and_old_ways_into_the_kernel_are_closed(me: Account):
    """Commands typed into the terminal; 32-bit calls die."""
    require_here("seccomp")
    terminal, other = os.openpty()
    tries = (
        "import fcntl, json\ntry: fcntl.ioctl(0, 0x5412 + (1 << 32), b'l')\nexcept OSError as error: print(error.errno)"
    )
    assert me.sealed(tries, only=["seccomp"], stdin=other).output == f"{errno.EPERM}\n"
    os.close(terminal)
    os.close(other)
    if linux.MACHINE == "x86_64":
        x32 = "import ctypes; ctypes.CDLL(None).syscall(0x40000000 + 41, 2, 1, 0)"
        assert me.sealed(x32, only=["seccomp"]).status == -31  # SIGSYS


STEERING = """
import ctypes, errno, fcntl, json, os, resource, struct
allow = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000))
class Filter(ctypes.Structure): _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_void_p)]
def listen():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(SECCOMP, 1, 8, ctypes.byref(Filter(1, ctypes.addressof(allow)))) < 0:
        raise OSError(ctypes.get_errno(), "")
def hold(command, argument):
    fcntl.fcntl(os.open("held", os.O_RDONLY | os.O_CREAT, 0o600), command, argument)
def tried(what):
    try:
        what()
        return "done"
    except OSError as error:
        return errno.errorcode[error.errno]
outside, least = os.getppid(), os.sched_param(0)
print(json.dumps({
    "others": [tried(each) for each in (
        listen,
        lambda: resource.prlimit(outside, resource.RLIMIT_NOFILE),
        lambda: os.setpriority(os.PRIO_PROCESS, outside, os.getpriority(os.PRIO_PROCESS, outside)),
        lambda: os.setpriority(os.PRIO_USER, 0, 0),
        lambda: hold(1024, fcntl.F_RDLCK),
        lambda: hold(1026, 1),
    )],
    # It is said to be done, for threads that ask so for each other.
    "order": [tried(lambda: os.sched_setscheduler(outside, os.SCHED_BATCH, least)), os.sched_getscheduler(outside)],
    "own": [tried(each) for each in (
        lambda: resource.prlimit(0, resource.RLIMIT_NOFILE, (64, 64)),
        lambda: os.setpriority(os.PRIO_PROCESS, 0, 1),
        lambda: os.sched_setscheduler(0, os.SCHED_BATCH, least),
        lambda: hold(fcntl.F_SETFD, fcntl.FD_CLOEXEC),
    )],
}))
"""


def test_no_process_outside_is_steered_or_held_up_and_no_other_filter_answers(somebody: Account):
    """A filter with a listener of its own could let the sockets through that this one asks about."""
    require_here("seccomp")
    program = f"SECCOMP = {linux.NUMBERS[linux.MACHINE]['seccomp']}\n{STEERING}"
    found = somebody.sealed(program, only=["seccomp"]).answer
    assert found == {"others": ["EPERM"] * 6, "order": ["done", os.SCHED_OTHER], "own": ["done"] * 4}
