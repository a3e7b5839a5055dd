"""Events that tell of a seal, as the supervisor would write them: whole, in part, off, opened, changed, tried."""

from __future__ import annotations

from engine.seal.ability import Ability
from engine.seal.report import LayerReport

LAYERS = [
    {
        "layer": "namespace",
        "held": True,
        "detail": {
            "masked": ["/"],
            "shown": ["/dev/null", "/etc/hosts", "/proc", "/usr", "/home/ada/runs"],
            "users": False,
        },
        "why": "",
        "fix": "",
        "milliseconds": 1.31,
    },
    {
        "layer": "landlock",
        "held": True,
        "detail": {
            "abi": 7,
            "rules": 41,
            "closed": ["files that were not named", "TCP", "signals to processes outside"],
        },
        "why": "",
        "fix": "",
        "milliseconds": 0.42,
    },
    {
        "layer": "seccomp",
        "held": True,
        "detail": {"sockets": "none", "instructions": 109, "sha256": "5b2c7e91" * 8},
        "why": "",
        "fix": "",
        "milliseconds": 0.2,
    },
]
NO_NAMESPACE = {
    **LAYERS[0],
    "held": False,
    "detail": {},
    "why": "AppArmor lets no ordinary user make user namespaces",
    "fix": "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
}
ANSWERS = {
    "TCP to the listener": "EACCES",
    "TCP to a host name": "no such name",
    "UDP to the listener": "EACCES",
    "DNS over UDP": "no answer",
    "IPv6": "EACCES",
    "multipath TCP": "EACCES",
    "raw ICMP": "EPERM",
    "ping socket": "EACCES",
    "packet socket": "EACCES",
    "vsock": "EACCES",
    "netlink route": "EACCES",
    "netlink audit": "EACCES",
    "kernel crypto socket": "EACCES",
    "from a subprocess": "EACCES",
    "from bash's /dev/tcp": "EACCES",
    "by ctypes": "EACCES",
    "int 0x80": "killed by SIGSYS",
    "io_uring": "ENOSYS",
    "path socket outside": "ENOENT",
    "abstract socket outside": "ENOENT",
    "trace a process outside": "EPERM",
    "join a namespace": "EPERM",
    "signal to a process outside": "EPERM",
    "write to ~/.bashrc": "EROFS",
    "read ~/.ssh": "EACCES",
    "a namespace of its own": "EPERM",
    "an inherited descriptor": "EBADF",
}
PROBES = {"tried": 27, "refused": 27, "open": [], "hits": 0, "control": True, "seconds": 1.12, "answers": ANSWERS}
EVIDENCE = {
    "pid": 4242,
    "no_new_privs": True,
    "seccomp": 2,
    "seccomp_filters": 1,
    "capabilities": dict.fromkeys(("effective", "permitted", "bounding", "inheritable", "ambient"), "0" * 16),
    "namespaces": {
        name: {"id": 4026532000 + at, "apart": True} for at, name in enumerate(("net", "mnt", "user", "ipc"))
    },
    "interfaces": {"lo": {"received_bytes": 0, "received_packets": 0, "sent_bytes": 0, "sent_packets": 0}},
    "routes_out": [],
    "packets_out": 0,
    "counters": {"IpOutRequests": 0, "UdpOutDatagrams": 0},
    "processes": 3,
    "unread": [],
}
SEAL = {
    "kind": "seal",
    "number": 1,
    "level": "best",
    "layers": LAYERS,
    "milliseconds": 1.93,
    "probes": PROBES,
    "evidence": EVIDENCE,
    "changed": [],
    "text": "sealed: namespace, landlock, seccomp; 27 of 27 probes refused",
}
SHARED = {name: {"id": 4026531840, "apart": False} for name in ("net", "mnt", "user", "ipc")}
IN_PART = {
    **SEAL,
    "evidence": {**EVIDENCE, "namespaces": SHARED, "interfaces": {}, "packets_out": None, "counters": {}},
    "layers": [NO_NAMESPACE, *LAYERS[1:]],
    "probes": {**PROBES, "refused": 26, "open": [{"name": "signal to a process outside", "answer": "delivered"}]},
    "text": "sealed in part: landlock, seccomp; no namespace",
}
UNSEALED = {**SEAL, "level": "off", "layers": [], "probes": None, "text": 'not sealed (privacy.seal = "off")'}
OPENED = {
    **SEAL,
    "probes": {**PROBES, "refused": 26, "open": [{"name": "UDP to the listener", "answer": "reply: hello"}], "hits": 1},
    "text": "the seal does not hold: 26 of 27 probes refused",
}
SEAL_CHECK = {"kind": "seal_check", "when": "checkpoint", "step": 400, "evidence": EVIDENCE, "changed": []}
SEAL_CHANGED = {
    **SEAL_CHECK,
    "evidence": {**EVIDENCE, "routes_out": ["default by eth0"], "packets_out": 12},
    "changed": ["a route leads out: default by eth0", "12 packets left"],
}
WAY_OUT = {
    "kind": "way_out",
    "what": "connect to 192.0.2.1 port 443",
    "where": "datasets/utils/file_utils.py:318",
    "process": "python",
    "pid": 4242,
    "count": 3,
    "text": "the trainer tried to connect to 192.0.2.1 port 443 (datasets/utils/file_utils.py:318); it was refused",
}

WHOLE = Ability(tuple(LayerReport(**layer) for layer in LAYERS))
"""What a machine can hold that has all layers, and one where an ordinary user makes no namespaces."""
WITHOUT_NAMESPACE = Ability((LayerReport(**NO_NAMESPACE), *WHOLE.layers[1:]))
