"""Out by sockets of IPv4 and IPv6, as Python and its libraries make them."""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path

from engine.seal.proof.probes.aims import Address, Aims
from engine.seal.proof.probes.calls import Skip

# An answer from this machine comes in a millisecond, and so does a refusal; this is for one that swaps.
_SECONDS = 3.0
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_MPTCP, _SCTP, _UDPLITE = 262, 132, 136
_AF_PACKET, _AF_ALG, _AF_VSOCK = 17, 38, 40


def by_socket(aims: Aims) -> str:
    return _say(aims, aims.tcp, socket.AF_INET)


def by_ipv6(aims: Aims) -> str:
    if aims.tcp6 is None:
        raise Skip("this machine has no IPv6")
    return _say(aims, aims.tcp6, socket.AF_INET6)


def by_urllib(aims: Aims) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{aims.tcp[0]}:{aims.tcp[1]}/{aims.nonce}", timeout=_SECONDS) as answer:
        return f"read {len(answer.read())} bytes"


def by_fast_open(aims: Aims) -> str:
    """Connects without connect(): the address goes with the first bytes."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as out:
        out.sendto(f"{aims.nonce}\n".encode(), socket.MSG_FASTOPEN, aims.tcp)
        return "connected"


def by_mptcp(aims: Aims) -> str:
    return _say(aims, aims.tcp, socket.AF_INET, protocol=_MPTCP)


def by_sctp(aims: Aims) -> str:
    _need("SCTP")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, _SCTP):
        return "a socket was made"


def by_udp(aims: Aims) -> str:
    return _ask(aims, aims.udp, socket.AF_INET)


def by_udp_over_ipv6(aims: Aims) -> str:
    if aims.udp6 is None:
        raise Skip("this machine has no IPv6")
    return _ask(aims, aims.udp6, socket.AF_INET6)


def by_udplite(aims: Aims) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, _UDPLITE):
        return "a socket was made"


def by_dns(aims: Aims) -> str:
    """A question for a name, as a resolver asks it: how data leaves where only port 53 is open."""
    labels = (aims.nonce, "example")
    name = b"".join(bytes([len(each)]) + each.encode() for each in labels) + b"\0"
    question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + name + b"\x00\x01\x00\x01"
    return _ask(aims, aims.udp, socket.AF_INET, question)


def by_raw_ip(aims: Aims) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP):
        return "a socket was made"


def by_ping(aims: Aims) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as out:
        out.settimeout(_SECONDS)
        out.sendto(b"\x08\0\0\0\0\0\0\0" + aims.nonce.encode(), (aims.tcp[0], 0))
        return "an echo request was sent"


def by_packets(aims: Aims) -> str:
    """Frames written to a network card."""
    _need("PACKET")
    with socket.socket(_AF_PACKET, socket.SOCK_RAW, 0):
        return "a socket was made"


def by_vsock(aims: Aims) -> str:
    """From a virtual machine to its host."""
    _need("VSOCK")
    with socket.socket(_AF_VSOCK, socket.SOCK_STREAM):
        return "a socket was made"


def by_kernel_cryptography(aims: Aims) -> str:
    _need("ALG")
    with socket.socket(_AF_ALG, socket.SOCK_SEQPACKET):
        return "a socket was made"


def by_rarer_families(aims: Aims) -> str:
    """Bluetooth, CAN, TIPC, RDS and the others: all but Unix, IPv4, IPv6 and the kernel's own messages."""
    families = {"AX25": 3, "X25": 9, "RDS": 21, "CAN": 29, "TIPC": 30, "Bluetooth": 31, "IUCV": 32, "RxRPC": 33}
    families |= {"Phonet": 35, "IEEE802154": 36, "NFC": 39, "KCM": 41, "QIPCRTR": 42, "SMC": 43, "XDP": 44}
    families = {name: number for name, number in families.items() if _may_be_asked_for(name)}
    if not families:
        raise Skip("this kernel has loaded none of them")
    made, refused = [], OSError()
    for name, number in families.items():
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_RAW):
            try:
                socket.socket(number, kind).close()
                made.append(name)
                break
            except OSError as error:
                refused = error
    if not made:
        raise refused
    return f"sockets were made: {', '.join(made)}"


def by_kernel_messages(aims: Aims) -> str:
    """Netlink beyond what lists the network's interfaces: auditing, device events, and what is built on them."""
    made, refused = [], OSError()
    for name, number in {"AUDIT": 9, "KOBJECT_UEVENT": 15, "GENERIC": 16}.items():
        try:
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, number).close()
            made.append(name)
        except OSError as error:
            refused = error
    if not made:
        raise refused
    return f"sockets were made: {', '.join(made)}"


def _may_be_asked_for(name: str) -> bool:
    """Whether asking has no effect: a kernel that is asked for a protocol it has not loaded loads it, where no filter
    of calls answers first."""
    filtered = "\nSeccomp:\t2" in Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    known = Path("/proc/net/protocols").read_text(encoding="ascii", errors="replace").lower().split()
    return filtered or name.lower() in known


def _need(name: str) -> None:
    if not _may_be_asked_for(name):
        raise Skip("this kernel has not loaded it")


def _say(aims: Aims, address: Address, family: int, protocol: int = 0) -> str:
    with socket.socket(family, socket.SOCK_STREAM, protocol) as out:
        out.settimeout(_SECONDS)
        out.connect(address)
        out.sendall(f"{aims.nonce}\n".encode())
        return "connected"


def _ask(aims: Aims, address: Address, family: int, question: bytes = b"") -> str:
    """Send to an address without connect(). Refused too where the kernel says that nobody is there."""
    with socket.socket(family, socket.SOCK_DGRAM) as out:
        level, option = (
            (socket.IPPROTO_IP, _IP_RECVERR) if family == socket.AF_INET else (socket.IPPROTO_IPV6, _IPV6_RECVERR)
        )
        out.setsockopt(level, option, 1)
        out.settimeout(_SECONDS)
        out.sendto(question or aims.nonce.encode(), address)
        return f"an answer of {len(out.recv(1 << 12))} bytes came"


PROBES = (
    ("TCP by Python's socket", by_socket),
    ("TCP over IPv6", by_ipv6),
    ("HTTP by urllib", by_urllib),
    ("TCP by sendto() alone (fast open)", by_fast_open),
    ("MPTCP", by_mptcp),
    ("SCTP", by_sctp),
    ("UDP", by_udp),
    ("UDP over IPv6", by_udp_over_ipv6),
    ("UDP-Lite", by_udplite),
    ("a DNS question", by_dns),
    ("raw IP packets", by_raw_ip),
    ("ping", by_ping),
    ("frames to a network card", by_packets),
    ("vsock, from a virtual machine to its host", by_vsock),
    ("the kernel's cryptography sockets", by_kernel_cryptography),
    ("sockets of rarer families", by_rarer_families),
    ("netlink beyond the list of interfaces", by_kernel_messages),
)
