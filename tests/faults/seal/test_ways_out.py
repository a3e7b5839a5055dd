"""Every way out that is known, tried from within every seal, in a network of its own that ends at a listener of ours.

The row without a seal shows that the listener is reached by these very ways: without it, silence would mean nothing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_ledger import Ledger
from private_network import ANOTHER_USER, OUTSIDE, environment_for, needs_root, run_in_private_network

Result = dict[str, Any]

LAYERS = ("namespace", "landlock", "seccomp")

# By which the listener is reached, where nothing seals.
TO_THE_LISTENER = {
    *("TCP by Python's socket", "TCP over IPv6", "HTTP by urllib", "TCP by sendto() alone (fast open)"),
    *("UDP", "UDP over IPv6", "a DNS question", "socket() and connect() by ctypes"),
    *("socket() with bits that the kernel drops", "another Python", "the shell's /dev/tcp", "curl"),
    *("a Unix socket of a path, as D-Bus's or Docker's", "a Unix datagram to a path, as the system's log"),
    *("an abstract Unix socket", "a datagram to an abstract Unix socket"),
    *("a message from a socket pair to elsewhere", "a descriptor handed to a program outside"),
    *("a named pipe outside", "a new file outside"),
}
# Those too, where the kernel has them; a container may forbid io_uring, and a kernel be built without 32-bit calls.
OF_SOME_MACHINES = {
    "MPTCP",
    "sockets by the 32-bit calls (int 0x80)",
    "sockets by io_uring",
    "a program made in memory",
}

# What stays open without a layer, as measured on Linux 6.18 as root and as another user. A kernel may refuse more.
_DEEP = {
    *("UDP-Lite", "vsock, from a virtual machine to its host", "netlink beyond the list of interfaces"),
    *("a namespace of one's own (unshare)", "a namespace of one's own (clone)", "a namespace of one's own (clone3)"),
    *("bpf", "performance events", "keys of the session", "a key for the session"),
    *("answering in the filter's place", "limits of a process outside", "priority of a process outside"),
    "a session of one's own",
    "holding up who opens a file (a lease)",
}
_SIGNALS, _SHARED_MEMORY = {"signals to a process outside"}, {"shared memory of another process"}
_FILES = {
    *("a named pipe outside", "a secret outside", "a secret outside, by a link", "a secret outside, by a hard link"),
    *("writing to a file outside", "a new file outside", "keys in the home folder", "what runs at the next log-in"),
    *("folders from which others run", "settings of the kernel", "devices of disks and networks"),
    *("memory of a process outside, as a file", "environment of a process outside", "root folder of a process outside"),
}
_SOCKETS = {
    *("TCP by sendto() alone (fast open)", "MPTCP", "UDP", "UDP over IPv6", "a DNS question"),
    *("a Unix socket of a path, as D-Bus's or Docker's", "a Unix datagram to a path, as the system's log"),
    *("a message from a socket pair to elsewhere", "a descriptor handed to a program outside"),
    *("a message queue of System V", "a message queue of POSIX", "shared memory of System V"),
}
OPEN_WITHOUT: dict[tuple[str, ...], set[str]] = {
    (): set(),
    ("namespace",): _SHARED_MEMORY,
    ("landlock",): _SIGNALS,
    ("seccomp",): _DEEP,
    ("namespace", "landlock"): _SHARED_MEMORY | _SIGNALS | _FILES,
    ("namespace", "seccomp"): _SHARED_MEMORY | _DEEP | _SOCKETS,
    ("landlock", "seccomp"): _SIGNALS | _DEEP,
}


@pytest.fixture(params=[None, ANOTHER_USER], ids=["this user", "another user"])
def user(request: pytest.FixtureRequest) -> int | None:
    needs_root(request.param)
    return request.param


@pytest.fixture
def home(user: int | None) -> Iterator[Path]:
    """A made-up home folder that `user` owns; pytest's own are closed to others."""
    path = Path(tempfile.mkdtemp(prefix="finetui-test-home-", dir="/var/tmp"))
    if user is not None:
        os.chown(path, user, user)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def battery(home: Path, user: int | None) -> Callable[..., Result]:
    """The battery under a seal, in a network of its own. Skips the test where the kernel has not got a layer that the
    seal is to have."""

    def run(level: str, sockets: str = "none", ip: str = OUTSIDE, without: tuple[str, ...] = ()) -> Result:
        environment = environment_for(home, FINETUI_SEAL_WITHOUT=",".join(without))
        command = ["-m", "one_battery", level, sockets, ip]
        result: Result = json.loads(run_in_private_network(command, environment, user))
        for layer in LAYERS if level != "off" and "refusal" not in result else ():
            if layer not in without and layer not in result["held"]:
                pytest.skip(f"this machine has no {layer}: {result['why'][layer]}")
        return result

    return run


def test_without_a_seal_every_way_leads_to_the_listener(battery: Callable[..., Result]) -> None:
    result = battery("off")

    assert result["control"]
    found = {each["name"] for each in result["open"]}
    skipped = {each["name"] for each in result["skipped"]}
    assert found >= TO_THE_LISTENER - skipped
    # One for each but the inherited descriptor, which says nothing more.
    assert result["hits"] >= len(found & (TO_THE_LISTENER | OF_SOME_MACHINES))
    assert not result["broken"]


@pytest.mark.parametrize(("sockets", "ip"), [("none", OUTSIDE), ("loopback", OUTSIDE), ("none", "127.0.0.1")])
def test_sealed_every_way_is_refused_and_work_goes_on(
    battery: Callable[..., Result], ledger: Ledger, sockets: str, ip: str
) -> None:
    result = battery("required", sockets, ip)

    count(ledger, result)
    assert (result["open"], result["hits"], result["broken"]) == ([], 0, [])
    assert result["control"]
    assert result["refused"] == result["tried"] >= len(TO_THE_LISTENER)


@pytest.mark.parametrize("without", [each for each in OPEN_WITHOUT if each], ids=" and ".join)
def test_without_a_layer_the_others_still_close_theirs(
    battery: Callable[..., Result], ledger: Ledger, without: tuple[str, ...]
) -> None:
    result = battery("best", without=without)

    assert result["control"]
    assert {each["name"] for each in result["open"]} <= OPEN_WITHOUT[without]
    # Only where two layers are missing does anything reach the listener: files by files, and sockets past Landlock,
    # which knows TCP alone.
    if without not in (("namespace", "landlock"), ("namespace", "seccomp")):
        count(ledger, result)
        assert result["hits"] == 0


@pytest.mark.parametrize("layer", LAYERS)
def test_a_required_layer_that_is_missing_starts_nothing(battery: Callable[..., Result], layer: str) -> None:
    refusal = battery("required", without=(layer,))["refusal"]

    assert f"the layer {layer} is missing" in refusal


def count(ledger: Ledger, result: Result) -> None:
    seal = ", ".join(result["held"])
    ledger.injected(f"ways out tried under {seal}", result["tried"])
    for _ in range(result["hits"]):
        ledger.lost(f"ways out tried under {seal}")
