"""What the kernel says of a sealed process, read from outside: no word of that process is needed for it.

Of Landlock the kernel keeps no such file; whether it holds is what the probes try (see battery.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from engine.process_stat import stat_fields
from engine.seal.proof.evidence import NAMESPACES, Evidence
from profiles.problem import printable

PROC = Path("/proc")

_CAPABILITIES = {"CapEff": "effective", "CapPrm": "permitted", "CapBnd": "bounding", "CapInh": "inheritable"} | {
    "CapAmb": "ambient"
}
_NETWORK_FILES = ("dev", "route", "ipv6_route", "snmp", "snmp6", "netstat")
_COUNTERS = (
    *("IpOutRequests", "IpOutNoRoutes", "Ip6OutRequests", "Ip6OutNoRoutes"),
    *("TcpActiveOpens", "UdpOutDatagrams", "Udp6OutDatagrams"),
)
NO_ROUTE_COUNTERS = ("IpOutNoRoutes", "Ip6OutNoRoutes")
"""Packets that were to go where no route leads."""
# Of the kernel's flags for a route: it is up, and it refuses what it matches.
_ROUTE_UP, _ROUTE_REJECTS = 0x1, 0x200


class NetworkFiles:
    """The kernel's files on the network of one process, held open: so they tell of that network, and of all that was
    ever sent in it, also once the process has ended."""

    def __init__(self, pid: int, proc: Path = PROC):
        self._files: dict[str, int] = {}
        self.unread: list[str] = []
        net = _namespaces(proc, pid, []).get("net")
        self.apart = net is not None and bool(net["apart"])
        """Whether it is another network than that of who reads; of one that is not, nothing counts."""
        for name in _NETWORK_FILES:
            path = proc / str(pid) / "net" / name
            try:
                self._files[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                self.unread.append(f"net/{name}: {error.strerror}")

    def read(self) -> tuple[dict[str, str], list[str]]:
        """The texts by name, and what could not be read."""
        texts, unread = {}, list(self.unread)
        for name, descriptor in self._files.items():
            try:
                os.lseek(descriptor, 0, os.SEEK_SET)
                texts[name] = _read_all(descriptor)
            except OSError as error:
                unread.append(f"net/{name}: {error.strerror}")
        return texts, unread

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])


def evidence(pid: int, network: NetworkFiles | None = None, *, proc: Path = PROC) -> Evidence:
    """What the kernel says of process `pid` now, and of what belongs to it; `network` are its files where they are held
    already. Of one that has ended, but was not waited for, its status and a held network are read."""
    unread: list[str] = []
    status = _status(proc / str(pid), unread)
    namespaces = _namespaces(proc, pid, unread)
    held = network or NetworkFiles(pid, proc)
    texts, unread_network = held.read()
    if network is None:
        held.close()
    # A process that has ended is in no namespace any more; what it was in was seen when its files were opened.
    apart = namespaces["net"]["apart"] if "net" in namespaces else network is not None and network.apart
    if not apart:
        texts = {}
    else:
        unread += unread_network
    interfaces = _interfaces(texts.get("dev", ""))
    processes, strays = _others(proc, pid, status, namespaces)
    return Evidence(
        pid=pid,
        no_new_privs=_flag(status.get("NoNewPrivs")),
        seccomp=_number(status.get("Seccomp")),
        seccomp_filters=_number(status.get("Seccomp_filters")),
        capabilities={name: status[key] for key, name in _CAPABILITIES.items() if key in status},
        namespaces=namespaces,
        interfaces=interfaces,
        routes_out=(*_routes(texts.get("route", "")), *_routes6(texts.get("ipv6_route", ""))),
        packets_out=sum(each["sent_packets"] for name, each in interfaces.items() if name != "lo")
        if "dev" in texts
        else None,
        counters=_counters(texts),
        processes=processes,
        strays=strays,
        unread=tuple(unread),
    )


def _status(process: Path, unread: list[str]) -> dict[str, str]:
    try:
        text = (process / "status").read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        unread.append(f"status: {error.strerror}")
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def _namespaces(proc: Path, pid: int, unread: list[str]) -> dict[str, dict[str, Any]]:
    found = {}
    for name in NAMESPACES:
        try:
            theirs, ours = (_namespace(proc / who / "ns" / name) for who in (str(pid), "self"))
        except (OSError, ValueError) as error:
            unread.append(f"ns/{name}: {error.strerror if isinstance(error, OSError) else error}")
            continue
        found[name] = {"id": theirs, "apart": theirs != ours}
    return found


def _namespace(link: Path) -> int:
    """The inode number of a namespace. Raises OSError, ValueError."""
    text = str(link.readlink())
    if (found := re.fullmatch(r"\w+:\[(\d+)\]", text)) is None:
        raise ValueError(f"is {printable(text, 60)}")
    return int(found[1])


def _interfaces(text: str) -> dict[str, dict[str, int]]:
    found = {}
    for line in text.splitlines()[2:]:
        name, _, numbers = line.partition(":")
        values = [int(each) for each in numbers.split()]
        names = ("received_bytes", "received_packets", "sent_bytes", "sent_packets")
        found[name.strip()] = dict(zip(names, (*values[0:2], *values[8:10]), strict=True))
    return found


def _routes(text: str) -> Iterator[str]:
    for line in text.splitlines()[1:]:
        interface, destination, _, flags, *_, mask = line.split()[:8]
        if interface != "lo" and int(flags, 16) & _ROUTE_UP and not int(flags, 16) & _ROUTE_REJECTS:
            # The kernel writes both as numbers of this machine's byte order.
            address = IPv4Address(bytes.fromhex(destination)[::-1])
            yield f"{address}/{int(mask, 16).bit_count()} by {interface}"


def _routes6(text: str) -> Iterator[str]:
    for line in text.splitlines():
        destination, length, *_, flags, interface = line.split()
        if interface != "lo" and int(flags, 16) & _ROUTE_UP and not int(flags, 16) & _ROUTE_REJECTS:
            yield f"{IPv6Address(bytes.fromhex(destination))}/{int(length, 16)} by {interface}"


def _counters(texts: Mapping[str, str]) -> dict[str, int]:
    found = {}
    lines = texts.get("snmp", "").splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        part = names.partition(":")[0]
        pairs = zip(names.split()[1:], values.split()[1:], strict=False)
        found.update({f"{part}{name}": int(value) for name, value in pairs})
    for line in texts.get("snmp6", "").splitlines():
        name, value = line.split()
        found[name] = int(value)
    return {name: found[name] for name in _COUNTERS if name in found}


def _others(
    proc: Path, pid: int, status: Mapping[str, str], namespaces: Mapping[str, Mapping[str, Any]]
) -> tuple[int, tuple[str, ...]]:
    """How many processes were read, the one itself among them, and what is not under the same seal."""
    read, strays = 1, []
    for number in _family(proc, pid):
        gone: list[str] = []
        theirs = _status(proc / str(number), gone)
        spaces = _namespaces(proc, number, gone)
        if gone:  # it has ended meanwhile, or lets nobody read it: only what was read is counted
            continue
        read += 1
        who = f"process {number} ({printable(theirs.get('Name', ''), 40)})"
        for key, what in (("Seccomp", "seccomp filter"), ("NoNewPrivs", "no_new_privs")):
            if status.get(key, "0") != "0" and theirs.get(key) != status[key]:
                strays.append(f"{who} is without the trainer's {what}")
        for name, called in NAMESPACES.items():
            if name in namespaces and spaces[name]["id"] != namespaces[name]["id"]:
                strays.append(f"{who} is not in the trainer's {called} namespace")
    return read, tuple(strays)


def _family(proc: Path, pid: int) -> list[int]:
    """The other processes of the session that `pid` leads, and all below it."""
    parents: dict[int, int] = {}
    found = set()
    for entry in proc.iterdir():
        if not entry.name.isdecimal():
            continue
        with suppress(OSError, IndexError, ValueError):  # it has ended meanwhile
            fields = stat_fields((entry / "stat").read_text(errors="replace"))
            parents[int(entry.name)] = int(fields[1])
            if int(fields[3]) == pid:
                found.add(int(entry.name))
    below = {pid}
    while more := {each for each, parent in parents.items() if parent in below} - below:
        below |= more
    return sorted((found | below) - {pid})


def _flag(text: str | None) -> bool | None:
    return None if text is None else text == "1"


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _read_all(descriptor: int) -> str:
    parts = []
    while part := os.read(descriptor, 1 << 16):
        parts.append(part)
    return b"".join(parts).decode("ascii", "replace")
