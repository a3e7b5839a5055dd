"""Machines that have a part of a layer, or take it back half way: what holds then, and what is told.

Inflicted for real: by a filter of calls that the launcher is started under, by limits, and by a process that may not
write about itself.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from launching import Account, Told, network_of_mine
from test_layers import require_here

from engine.seal.ability import ability
from engine.seal.layers import landlock, linux, remedies
from engine.seal.layers.bpf import Program
from engine.seal.layers.launch import REFUSED_STATUS
from engine.seal.proof.refusals import Refusals, socket_pair
from engine.seal.report import LayerReport, SealReport
from engine.seal.request import LAYERS

ALLOW, ERROR = 0x7FFF0000, 0x50000
NO_NEW_PRIVILEGES, DUMPABLE, NEW_USERS, NEW_LISTENER = 38, 4, 0x10000000, 8
INTERNET = """
import errno, json, os, socket
answers = [os.getuid(), os.readlink("/proc/self/ns/net")]
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK):
    try: socket.socket(family, socket.SOCK_DGRAM).close(); answers.append("open")
    except OSError as error: answers.append(errno.errorcode[error.errno])
print(json.dumps(answers))
"""
# All but the folder in which they are listed, the one by which a process measures its memory, and its own threads'.
DESCRIPTORS = """
import json, os
found = {int(each) for each in os.listdir("/proc/self/fd") if os.path.lexists("/proc/self/fd/" + each)}
threads = {each for each in found if os.readlink(f"/proc/self/fd/{each}") == f"/proc/{os.getpid()}/task"}
print(json.dumps(sorted(found - threads - {int(os.environ.get("FINETUI_PEAK_MARK", -1))})))
"""


def refusing(answers: Mapping[str, int], flags: int = 0) -> Callable[[], int]:
    """Takes on a filter that answers these calls so, as a container's profile does."""
    program = Program()
    program.load(0)
    for name, answer in answers.items():
        program.equal(linux.NUMBERS[linux.MACHINE][name], otherwise=f"not {name}")
        program.answer(ERROR | answer)
        program.label(f"not {name}")
    program.answer(ALLOW)
    code = program.assembled()

    class Filter(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]

    def take_on() -> int:
        linux.prctl(NO_NEW_PRIVILEGES, 1)
        return linux.call("seccomp", 1, flags, ctypes.byref(Filter(len(program), code)))

    return take_on


def layers_of(told: Told) -> dict[str, LayerReport]:
    return {each.layer: each for each in told.report.layers}


# What is refused to the launcher; which layers are left, a word of why, and one of the fix.
PROFILES: dict[str, tuple[dict[str, int], set[str], str, str]] = {
    "namespaces": ({"unshare": errno.EPERM}, {"landlock", "seccomp"}, "refuses new namespaces", "--security-opt"),
    "Landlock": (
        {"landlock_create_ruleset": errno.ENOSYS},
        {"namespace", "seccomp"},
        "refuses Landlock",
        "--security-opt",
    ),
    "its rules": ({"landlock_add_rule": errno.EPERM}, {"namespace", "seccomp"}, "landlock_add_rule", ""),
    "filters": ({"seccomp": errno.EINVAL}, {"namespace", "landlock"}, "no filters of system calls", "CONFIG_SECCOMP"),
}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_container_that_refuses_one_layer_leaves_the_others(somebody: Account, profile: str, ledger):
    require_here(*LAYERS)
    refused, left, why, fix = PROFILES[profile]
    prepare: Any = refusing(refused)
    told = somebody.sealed(INTERNET, prepare=prepare)
    ledger.injected("kernel refuses a layer")
    assert set(told.report.held) == left
    (missing,) = told.report.missing
    assert why in missing.why and fix in missing.fix
    user, network, *sockets = told.answer
    assert user == somebody.user and (network != network_of_mine()) is ("namespace" in left)
    assert (set(sockets) == {"EACCES"}) is ("seccomp" in left)
    required = somebody.sealed(INTERNET, "required", prepare=prepare)
    assert (required.status, required.output) == (REFUSED_STATUS, "") and why in required.report.refused


def test_where_mounting_is_refused_the_network_is_still_its_own_and_the_report_says_what_is_open(
    somebody: Account, ledger
):
    """As AppArmor's profile for docker does it."""
    require_here("namespace")
    other = somebody.folder / "other"
    other.write_text("here")
    prepare: Any = refusing({"mount": errno.EACCES})
    program = (
        f"import json, os; print(json.dumps([os.getcwd(), open({str(other)!r}).read(), os.listdir('/sys/class/net')]))"
    )
    told = somebody.sealed(program, only=["namespace"], prepare=prepare)
    ledger.injected("kernel refuses a layer")
    namespace = layers_of(told)["namespace"]
    assert told.answer[:2] == [str(somebody.folder), "here"]
    assert namespace.held and namespace.detail["masked"] == [] and "files are not covered" in namespace.why


def test_a_user_namespace_that_cannot_be_set_up_is_not_entered(another: Account, open_folder: Path, ledger):
    """Ubuntu lets one be made, and refuses what belongs to it. A process that cannot write what it is in it would be
    nobody for good. Here its own files in /proc are root's, since its program may be run and not read."""
    require_here("namespace")
    unreadable = open_folder / "python"
    shutil.copy(Path(another.python).resolve(), unreadable)
    unreadable.chmod(0o711)
    told = another.sealed(INTERNET, python=str(unreadable))
    ledger.injected("kernel refuses a layer")
    assert told.report.held == ("landlock", "seccomp") and layers_of(told)["namespace"].why
    assert told.answer == [another.user, network_of_mine(), "EACCES", "EACCES", "EACCES"]


@pytest.mark.parametrize("kind", ["user", "net", "mnt", "ipc"])
def test_a_machine_without_room_for_a_namespace_says_which(another: Account, kind: str, ledger):
    require_here("namespace")
    user = another.user

    def prepare() -> None:
        linux.prctl(DUMPABLE, 1)  # who stops being root may not write about itself, until it starts a program
        linux.call("unshare", NEW_USERS)
        for name, content in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{user} {user} 1")):
            Path("/proc/self", name).write_text(content)
        Path(f"/proc/sys/user/max_{kind}_namespaces").write_text("0")

    told = another.sealed(INTERNET, prepare=prepare)
    ledger.injected("kernel refuses a layer")
    missing = layers_of(told)["namespace"]
    assert told.report.held == ("landlock", "seccomp") and told.answer[0] == user
    assert missing.why == f"this machine allows no {kind} namespaces" and f"user.max_{kind}_namespaces=" in missing.fix


def test_root_of_a_container_gains_nothing_in_a_user_namespace(me: Account):
    require_here("namespace")
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can be root with less")
    less = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all"]
    asks = (
        "import json, subprocess; "
        "status = subprocess.run(['cat', '/proc/self/status'], capture_output=True, text=True).stdout; "
        "print(json.dumps([line.split()[1] for line in status.splitlines() if line.startswith(('Cap', 'Uid'))]))"
    )
    told = me.sealed(asks, only=["namespace"], before=less)
    assert layers_of(told)["namespace"].detail["users"] is True
    assert told.answer == ["0", *["0" * 16] * 5]


def test_refused_sockets_are_told_to_who_listens_and_to_nobody_where_somebody_listens_already(somebody: Account):
    """The kernel gives a process one listener; a container's may have it."""
    require_here("seccomp")

    with Path(os.devnull).open() as place:

        def taken() -> None:
            os.dup2(refusing({}, NEW_LISTENER)(), place.fileno(), inheritable=True)

        for prepare, kept in ((None, ()), (taken, (place.fileno(),))):
            ours, theirs = socket_pair()
            refusals = Refusals(ours)
            with refusals.answered() as tried:
                told = somebody.sealed(INTERNET, refusals=theirs.fileno(), prepare=prepare, keep=kept)
                theirs.close()
            refusals.close()
            assert told.answer[2:] == ["EACCES"] * 3
            assert layers_of(told)["seccomp"].detail["told"] is (prepare is None)
            families = [each.what for each in tried]
            assert len(families) == (2 if prepare is None else 0), "asking for one's own addresses is no try to leave"


def test_each_inherited_descriptor_is_closed_and_a_kept_socket_has_to_be_local(somebody: Account):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as lonely:
        inherited = [os.dup2(server.fileno(), number, inheritable=True) for number in (77, 1500)]
        left, right = socket.socketpair()
        try:
            low = {"pass_fds": inherited, "prepare": _lower_limit}
            found = somebody.sealed(DESCRIPTORS, keep=[left.fileno()], **low).answer
            assert found == sorted({0, 1, 2, left.fileno()})
            for refused, why in ((server, "is a network socket"), (lonely, "is a socket without a peer")):
                started = somebody.sealed(["true"], keep=[refused.fileno()])
                assert started.status == REFUSED_STATUS and why in started.report.refused
            assert "is a network socket" in somebody.sealed(["true"], stdin=server).report.refused
        finally:
            for number in inherited:
                os.close(number)
            left.close()
            right.close()


@pytest.mark.parametrize("only", [[], None], ids=["no layer", "all layers"])
def test_the_socket_for_the_listener_is_not_left_to_the_command(me: Account, only: list[Any] | None):
    ours, theirs = socket_pair()
    with ours, theirs:
        told = me.sealed(DESCRIPTORS, only=only, refusals=theirs.fileno())
        assert told.answer == [0, 1, 2]


def _lower_limit() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


# What a machine's files hold, the kernel's error number, and what is said of it: a word of why, and of the fix.
MACHINES: dict[str, tuple[dict[str, str], int, str, str]] = {
    "Ubuntu": (
        {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"},
        errno.EACCES,
        "AppArmor restricts user namespaces here, as Ubuntu sets it up",
        "kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    "Debian": (
        {"/proc/sys/kernel/unprivileged_userns_clone": "0"},
        errno.EPERM,
        "keeps user namespaces for root",
        "kernel.unprivileged_userns_clone=1",
    ),
    "none allowed": (
        {"/proc/sys/user/max_user_namespaces": "0"},
        errno.ENOSPC,
        "allows no user namespaces",
        "user.max_user_namespaces=10000",
    ),
    "all in use": ({"/proc/sys/user/max_user_namespaces": "5"}, errno.ENOSPC, "as many namespaces as", "sysctl"),
    "docker": ({"/proc/self/status": "Name:\tx\nSeccomp:\t2\n"}, errno.EPERM, "as containers have", "unconfined"),
    "something else": ({}, errno.EPERM, "refuses user namespaces", ""),
    "built without": ({}, errno.EINVAL, "has no user and network namespaces", "CONFIG_USER_NS"),
    "odd": ({}, errno.EIO, "Input/output error", ""),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_why_there_is_no_namespace_and_what_an_administrator_may_do(machine: str):
    files, answer, why, fix = MACHINES[machine]
    missing = remedies.namespace_missing(answer, lambda path: files.get(path, ""))
    assert why in missing.why and fix in missing.fix and (fix or not missing.fix)


@pytest.mark.parametrize(
    ("files", "answer", "why", "fix"),
    [
        (
            {"/sys/kernel/security/lsm": "lockdown,yama"},
            errno.EOPNOTSUPP,
            "started without it",
            "lsm=landlock,lockdown,yama",
        ),
        ({"/proc/sys/kernel/osrelease": "5.4.0-1-generic"}, errno.ENOSYS, "too old", "5.13"),
        ({"/proc/sys/kernel/osrelease": "6.8.0"}, errno.ENOSYS, "built without", "CONFIG_SECURITY_LANDLOCK"),
        (
            {"/proc/sys/kernel/osrelease": "6.8.0", "/proc/self/status": "Name:\tx\nSeccomp:\t2\n"},
            errno.EPERM,
            "as containers have",
            "--security-opt",
        ),
        ({"/proc/sys/kernel/osrelease": "6.8.0"}, errno.EIO, "Input/output error", ""),
    ],
)
def test_why_there_is_no_landlock_and_what_an_administrator_may_do(
    files: dict[str, str], answer: int, why: str, fix: str
):
    missing = remedies.landlock_missing(answer, lambda path: files.get(path, ""))
    assert why in missing.why and fix in missing.fix


def test_older_versions_of_landlock_say_what_they_cannot_refuse():
    def said(version: int, sockets: Any = "none") -> tuple[int, int, int, int, list[str], list[str]]:
        asked, size, closed, open_ = landlock.refusals(version, sockets)
        return asked.files, asked.network, asked.scoped, size, closed, open_

    assert said(1)[:4] == (0x1FFF, 0, 0, 8) and len(said(1)[5]) == 4
    assert said(3)[:4] == (0x7FFF, 0, 0, 8) and said(4)[:4] == (0x7FFF, 3, 0, 16)
    assert said(5)[5] == ["signals to processes outside"]
    assert said(6)[:4] == said(8)[:4] == (0xFFFF, 3, 3, 24) and said(7)[5] == []
    assert said(9)[:4] == (0x1FFFF, 3, 3, 24) and said(12) == said(9), "what is newer than this is not asked for"
    assert said(7, "loopback")[1] == 0 and "TCP" not in said(7, "loopback")[4]
    closed = [len(said(version)[4]) for version in range(1, 10)]
    assert closed == sorted(closed) and closed[-1] == 8


def test_ability_is_what_held_for_a_process_just_now_or_why_nothing_does(monkeypatch: pytest.MonkeyPatch):
    here = ability()
    assert [each.layer for each in here.layers] == list(LAYERS)
    monkeypatch.setenv("FINETUI_SEAL_WITHOUT", "namespace,landlock")
    less = ability()
    assert set(less.held) == {"seccomp"} & set(here.held)
    assert all("(simulated)" in each.why for each in less.missing if each.layer != "seccomp")
    mac = ability("darwin")
    assert mac.held == () and all("macOS" in each.why and each.fix for each in mac.missing)

    def no_process() -> SealReport:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    assert all(os.strerror(errno.EAGAIN) in each.why for each in ability("linux", no_process).missing)
    inherited = ability("linux", lambda: SealReport("best", inherited=True))
    assert len(inherited.missing) == 3 and "within a seal" in inherited.missing[0].why
    assert json.dumps([each.why for each in inherited.layers])
