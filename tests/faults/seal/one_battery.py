"""python one_battery.py LEVEL SOCKETS IP: the battery under that seal in this network, told as JSON. Layers that are to
be missing are named in the environment (FINETUI_SEAL_WITHOUT)."""

from __future__ import annotations

import json
import socket
import sys
import tempfile
from pathlib import Path

from engine.seal.policy.places import Places, computing_places
from engine.seal.proof.battery import run_battery
from engine.seal.sealing import SealRefused


def main(level: str, sockets: str, ip: str) -> None:
    # Asked of the kernel before anything is tried: nothing that gets out of the seal gets any further.
    assert [name for _, name in socket.if_nameindex()] == ["lo"], "not in a network of its own"
    home = Path.home()
    for name in (".ssh/id_ed25519", ".netrc", ".bashrc"):
        (home / name).parent.mkdir(exist_ok=True, mode=0o700)
        (home / name).write_text("a secret of a made-up person\n")
    with tempfile.TemporaryDirectory(dir=home) as run:
        try:
            result = run_battery(computing_places() | Places(write=(run,)), level, sockets=sockets, ip=ip)
        except SealRefused as error:
            print(json.dumps({"refusal": str(error)}))
            return
    why = {each.layer: each.why for each in result.seal.missing}
    print(json.dumps(result.as_dict() | {"held": list(result.seal.held), "why": why}))


if __name__ == "__main__":
    main(*sys.argv[1:])
