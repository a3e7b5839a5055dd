"""What the kernel's files tell of a sealed process: each way in which they could tell that a seal does not hold is
noticed, and what cannot be read is taken for no proof of anything."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_ledger import Ledger
from waiting import wait_until

from engine.seal.proof.evidence import Evidence
from engine.seal.proof.kernel_word import NetworkFiles, evidence
from engine.seal.request import LAYERS

WORKER, HELPER, OURS = 500, 501, 7
_NAMES = ("net", "mnt", "user", "ipc")
_DEV = "Inter-|   Receive |  Transmit\n face |bytes ...\n    lo: 172 4 0 0 0 0 0 0 172 4 0 0 0 0 0 0\n"
_ETH = "  eth0: 0 0 0 0 0 0 0 0 {0} {1} 0 0 0 0 0 0\n"
_NONE = "0" * 32
_ROUTE = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"


class FakeProc:
    """A /proc with a sealed worker and its helper, as this kernel writes them, and ourselves outside."""

    def __init__(self, root: Path):
        self.root = root
        for pid, parent in ((WORKER, 1), (HELPER, WORKER)):
            folder = root / str(pid)
            (folder / "ns").mkdir(parents=True)
            (folder / "net").mkdir()
            (folder / "stat").write_text(f"{pid} (a (strange) name) S {parent} {WORKER} {WORKER} 0 -1 0 0\n")
            self.write(
                pid, "status", f"Name:\tworker\nPid:\t{pid}\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n"
            )
            self.append(pid, "status", "CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\n")
            self.append(pid, "status", "Seccomp:\t2\nSeccomp_filters:\t1\n")
            self.write(pid, "net/dev", _DEV)
            self.write(pid, "net/route", _ROUTE)
            self.write(pid, "net/ipv6_route", "")
            self.write(pid, "net/snmp", "Ip: Forwarding OutRequests OutNoRoutes\nIp: 2 4 0\n")
            self.write(pid, "net/snmp6", "Ip6OutRequests   0\n")
            self.write(pid, "net/netstat", "")
            for name in _NAMES:
                self.enter(pid, name, 90)
        (root / "self" / "ns").mkdir(parents=True)
        for name in _NAMES:
            (root / "self" / "ns" / name).symlink_to(f"{name}:[{OURS}]")

    def enter(self, pid: int, name: str, namespace: int) -> None:
        link = self.root / str(pid) / "ns" / name
        link.unlink(missing_ok=True)
        link.symlink_to(f"{name}:[{namespace}]")

    def write(self, pid: int, name: str, text: str) -> None:
        (self.root / str(pid) / name).write_text(text)

    def append(self, pid: int, name: str, text: str) -> None:
        with (self.root / str(pid) / name).open("a") as file:
            file.write(text)

    def change(self, pid: int, name: str, old: str, new: str) -> None:
        text = (self.root / str(pid) / name).read_text()
        assert old in text
        self.write(pid, name, text.replace(old, new))

    def evidence(self) -> Evidence:
        return evidence(WORKER, proc=self.root)


Tamper = Callable[[FakeProc], None]

# What is done, the word by which it is noticed, and whether also one who sees it for the first time knows it is wrong.
TAMPERED: dict[str, tuple[Tamper, str, bool]] = {
    "no_new_privs off": (lambda proc: proc.change(WORKER, "status", "Privs:\t1", "Privs:\t0"), "no_new_privs", True),
    "seccomp off": (lambda proc: proc.change(WORKER, "status", "Seccomp:\t2", "Seccomp:\t0"), "seccomp", True),
    "capabilities": (
        lambda proc: proc.change(WORKER, "status", "CapEff:\t0000000000000000", "CapEff:\t0000000000200000"),
        "capabilities",
        True,
    ),
    "our network": (lambda proc: proc.enter(WORKER, "net", OURS), "network namespace", True),
    "our files": (lambda proc: proc.enter(WORKER, "mnt", OURS), "mount namespace", True),
    "another user namespace": (lambda proc: proc.enter(WORKER, "user", 91), "user namespace", True),
    "an interface": (lambda proc: proc.append(WORKER, "net/dev", _ETH.format(0, 0)), "interface appeared: eth0", False),
    "a packet": (lambda proc: proc.append(WORKER, "net/dev", _ETH.format(99, 3)), "3 packets left", True),
    "a route": (
        lambda proc: proc.append(WORKER, "net/route", "eth0\t00000000\t0102000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"),
        "0.0.0.0/0 by eth0",
        True,
    ),
    "an IPv6 route": (
        lambda proc: proc.append(
            WORKER, "net/ipv6_route", f"{'0' * 32} 00 {'0' * 32} 00 {'0' * 32} 0 0 0 00000001 eth0\n"
        ),
        "::/0 by eth0",
        True,
    ),
    "a helper without a filter": (
        lambda proc: proc.change(HELPER, "status", "Seccomp:\t2", "Seccomp:\t0"),
        "process 501 (worker) is without the trainer's seccomp filter",
        True,
    ),
    "a helper outside": (lambda proc: proc.enter(HELPER, "net", OURS), "process 501 (worker) is not in", True),
}


def test_an_untouched_seal_raises_no_doubt_and_does_not_change(tmp_path: Path):
    first = FakeProc(tmp_path).evidence()
    assert first.doubts(LAYERS) == [] and first.unread == () and first.processes == 2
    assert (first.packets_out, first.counters["IpOutRequests"], first.as_dict()["routes_out"]) == (0, 4, [])
    assert FakeProc(tmp_path / "again").evidence().changed_since(first) == []


@pytest.mark.parametrize("name", TAMPERED)
def test_what_is_not_as_it_was_is_noticed(tmp_path: Path, name: str, ledger: Ledger):
    proc = FakeProc(tmp_path)
    first = proc.evidence()
    tamper, sentence, doubted = TAMPERED[name]
    tamper(proc)
    ledger.injected("a seal that was tampered with")
    now = proc.evidence()
    assert any(sentence in each for each in now.changed_since(first)), now
    assert bool(now.doubts(LAYERS)) == doubted


def test_what_cannot_be_read_is_said_and_is_no_proof(tmp_path: Path):
    proc = FakeProc(tmp_path)
    first = proc.evidence()
    proc.change(WORKER, "status", "Seccomp:\t2\n", "")
    (tmp_path / str(WORKER) / "ns" / "net").unlink()
    now = proc.evidence()
    assert (now.seccomp, "net" in now.namespaces, now.packets_out) == (None, False, None)
    assert now.unread and all("net" in each for each in now.unread)
    assert now.changed_since(first) == [] and now.doubts(LAYERS) == []
    shutil.rmtree(tmp_path / str(WORKER))
    gone = proc.evidence()
    assert gone.no_new_privs is None and any(each.startswith("status") for each in gone.unread)


_SENDER = """
import fcntl, socket, struct, subprocess, sys
tunnel = open("/dev/net/tun", "r+b", buffering=0)  # the interface is there for as long as somebody holds this
fcntl.ioctl(tunnel, 0x400454CA, struct.pack("16sH14x", b"far", 0x1001))
for command in ("link set lo up", "address add 192.0.2.1/24 dev far", "link set far up"):
    subprocess.run(["ip", *command.split()], check=True)
holder = subprocess.Popen(["cat"], stdin=tunnel, stdout=subprocess.DEVNULL)  # what it reads has left
print(holder.pid, flush=True)
sys.stdin.readline()
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    for _ in range(5):
        sender.sendto(b"a row", ("192.0.2.7", 9))
"""


@pytest.mark.skipif(None in (shutil.which("ip"), shutil.which("unshare")), reason="needs iproute2 and util-linux")
def test_packets_that_left_are_counted_though_their_sender_has_ended(ledger: Ledger):
    # An interface that leads nowhere, in a namespace of the sender's own: to the kernel its packets left all the same.
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", _SENDER]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1) as sender:
        assert sender.stdin and sender.stdout and sender.stderr
        if not (holder := sender.stdout.readline()):
            pytest.skip(f"no network namespace with an interface here: {sender.stderr.read().decode()[-200:]}")
        network = NetworkFiles(sender.pid)
        first = evidence(sender.pid, network)
        assert "a route leads out: 192.0.2.0/24 by far" in first.doubts(("namespace",))
        sender.stdin.write(b"\n")
        sender.stdin.flush()
        sender.stdout.read()  # until it has ended; it is waited for below
        ledger.injected("packets sent past the loopback")
        wait_until(lambda: (evidence(sender.pid, network).packets_out or 0) >= (first.packets_out or 0) + 5)
        now = evidence(sender.pid, network)
        os.kill(int(holder), signal.SIGKILL)
        wait_until(lambda: "far" not in evidence(sender.pid, network).interfaces)
        gone = evidence(sender.pid, network)
    assert any("packets left" in each for each in now.changed_since(first))
    assert now.counters["UdpOutDatagrams"] == 5
    assert "a network interface is gone, and with it what it counted: far" in gone.changed_since(now)
    network.close()
