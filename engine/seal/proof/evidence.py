"""What the kernel said of a sealed process at one moment, and what is to be thought of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.seal.layers.capabilities import DAC_OVERRIDE, FOWNER
from engine.seal.request import Layer

NAMESPACES = {"net": "network", "mnt": "mount", "user": "user", "ipc": "IPC"}
"""Those that are compared, by the kernel's name, with what a sentence calls them."""

FILE_CAPABILITIES = 1 << DAC_OVERRIDE | 1 << FOWNER
"""All that a sealed root keeps, to read and write what is others'."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One process at one moment; what could not be read is None or left out, and named in `unread`."""

    pid: int
    no_new_privs: bool | None
    seccomp: int | None
    """0: none, 2: a filter decides over each system call."""
    seccomp_filters: int | None
    capabilities: Mapping[str, str]
    """effective, permitted, bounding, inheritable, ambient: sets of bits, as the kernel's hexadecimal text."""
    namespaces: Mapping[str, Mapping[str, Any]]
    """By the kernel's name {id, apart}; apart: it is not that of the process which reads this."""
    interfaces: Mapping[str, Mapping[str, int]]
    """By name {received_bytes, received_packets, sent_bytes, sent_packets}. Like all that follows on the network only
    where that is apart: else it is the machine's, and tells nothing of this process."""
    routes_out: tuple[str, ...]
    """Routes that lead elsewhere than to this machine itself."""
    packets_out: int | None
    """Sent by any interface but the loopback."""
    counters: Mapping[str, int]
    processes: int
    """Of its session and below it, that were read, itself among them."""
    strays: tuple[str, ...]
    """Of these, what is not under the same seal, each as a sentence."""
    unread: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON types."""
        values = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def doubts(self, held: Sequence[Layer]) -> list[str]:
        """What is otherwise than it should be where these layers hold, a sentence each; what could not be read is not
        judged."""
        if not held:
            return []
        effective = int(self.capabilities.get("effective", "0"), 16) & ~FILE_CAPABILITIES
        found = ["no_new_privs is off: a program may raise its rights"] * (self.no_new_privs is False)
        found += [f"it has capabilities ({effective:x})"] * bool(effective)
        found += ["no seccomp filter holds"] * ("seccomp" in held and self.seccomp not in (2, None))
        if "namespace" in held:
            shared = [name for name in ("net", "mnt") if name in self.namespaces and not self.namespaces[name]["apart"]]
            found += [f"its {NAMESPACES[name]} namespace is not one of its own" for name in shared]
            found += [f"a route leads out: {route}" for route in self.routes_out]
            found += _left(0, self.packets_out)
        return [*found, *self.strays]

    def changed_since(self, first: Evidence) -> list[str]:
        """What is less tight than at `first`, a sentence each; what could not be read, now or then, is not judged."""
        return [
            *_loosened(first.no_new_privs, self.no_new_privs, "no_new_privs is off: a program may raise its rights"),
            *_loosened(first.seccomp == 2, _is(self.seccomp, 2), "seccomp filters its system calls no more"),
            *_fewer(first.seccomp_filters, self.seccomp_filters),
            *_gained(first.capabilities, self.capabilities),
            *_moved(first.namespaces, self.namespaces),
            *(f"a network interface appeared: {name}" for name in self.interfaces if name not in first.interfaces),
            *_gone(first.interfaces, self.interfaces),
            *(f"a route out appeared: {route}" for route in self.routes_out if route not in first.routes_out),
            *_left(first.packets_out, self.packets_out),
            *(stray for stray in self.strays if stray not in first.strays),
        ]


def _loosened(before: bool | None, now: bool | None, sentence: str) -> list[str]:
    return [sentence] if before and now is False else []


def _fewer(before: int | None, now: int | None) -> list[str]:
    if before is None or now is None or now >= before:
        return []
    return [f"of its {before} seccomp filters {now} are left"]


def _gained(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in before.keys() & now.keys():
        if more := int(now[name], 16) & ~int(before[name], 16):
            yield f"it gained capabilities ({name}: {more:x})"


def _gone(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    names = [name for name in before if name not in now] if now else []  # where none is known, none could be read
    return [f"a network interface is gone, and with it what it counted: {name}" for name in names]


def _moved(before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, called in NAMESPACES.items():
        if name in before and name in now and before[name]["id"] != now[name]["id"]:
            yield f"it is in another {called} namespace"


def _left(before: int | None, now: int | None) -> list[str]:
    if before is None or now is None or now <= before:
        return []
    return [f"{now - before:,} packets left by another interface than the loopback"]


def _is(value: int | None, wanted: int) -> bool | None:
    return None if value is None else value == wanted
