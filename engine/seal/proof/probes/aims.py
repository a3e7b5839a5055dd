"""What the probes aim at: doors, files and a process that the caller made, and nothing of anybody else's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Aims:
    """All of it outside the seal. What this machine has none of is None or empty, and its probes are skipped."""

    nonce: str
    """Said at each door, so that a stray visitor is no hit."""
    tcp: Address
    udp: Address
    tcp6: Address | None = None
    udp6: Address | None = None
    streams: tuple[str, ...] = ()
    """Unix stream sockets that have a path, as those of D-Bus, Docker or an ssh agent."""
    datagrams: tuple[str, ...] = ()
    """Unix datagram sockets that have a path, as that of the system's log."""
    abstract: str = ""
    abstract_datagram: str = ""
    """Unix sockets without a path: names, without the leading null."""
    bystander: int | None = None
    """A process outside with `nonce` in its environment and nothing else of worth."""
    ipc: str = ""
    """What /proc/self/ns/ipc leads to outside."""
    folder: str = ""
    """A private folder outside the places of the seal, with a file `secret` that holds `nonce` and a named pipe
    `pipe`."""
    shared_memory: str = ""
    """A file of another process in /dev/shm."""
    homes: tuple[str, ...] = ()
    """Files and folders of the person's that hold keys, and are there. Opened and closed, not read."""
    startup: tuple[str, ...] = ()
    """Files that are run when the person logs in, and are there. Opened for writing and closed, not written."""
    devices: tuple[str, ...] = ()
    """Devices that lead around the file system or the network, and are there. Opened and closed."""
    programs: Mapping[str, str] = field(default_factory=dict)
    """Paths of programs by name, of those that are installed."""
    writable: str = ""
    """A folder within the places of the seal; what the probes make there they remove."""
    sockets: str = "none"
    """As in the SealRequest: with "loopback", that of the seal has to work."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Aims:
        """Raises ValueError, TypeError for what is none."""
        values = json.loads(text)
        for name, value in values.items():
            values[name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)
