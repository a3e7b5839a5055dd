"""How many ways out each seal refuses, and what reached the listener: python tests/benchmarks/seal_matrix.py

Each row is the battery under one level and one set of layers, in a network of its own that ends at a listener of ours.
"not refused" names what stays open; without a seal, what is refused all the same.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from itertools import combinations
from pathlib import Path
from typing import Any

_SEAL_TESTS = Path(__file__).parents[1] / "faults" / "seal"
sys.path.append(str(_SEAL_TESTS))

from private_network import ANOTHER_USER, OUTSIDE, environment_for, run_in_private_network  # noqa: E402

LAYERS = ("namespace", "landlock", "seccomp")
_MOST_NAMED = 4


def main() -> None:
    for user in (None, ANOTHER_USER) if os.geteuid() == 0 else (None,):
        home = Path(tempfile.mkdtemp(prefix="finetui-matrix-", dir="/var/tmp"))
        if user is not None:
            os.chown(home, user, user)
        try:
            _print_rows(home, user)
        finally:
            shutil.rmtree(home)


def _print_rows(home: Path, user: int | None) -> None:
    print(f"\nas {'this user' if user is None else f'user {user}'} ({os.geteuid() if user is None else user}):")
    names = f"{'level':<9} {'sockets':<9} {'layers':<30} {'refused':>9} {'hits':>5} {'control':>8} {'seconds':>8}"
    print(f"{names}  not refused")
    _print_row("off", "none", (), home, user)
    for sockets in ("none", "loopback"):
        _print_row("required", sockets, (), home, user)
    for missing in (1, 2, 3):
        for without in combinations(LAYERS, missing):
            _print_row("best", "none", without, home, user)
    for layer in LAYERS:
        _print_row("required", "none", (layer,), home, user)


def _print_row(level: str, sockets: str, without: tuple[str, ...], home: Path, user: int | None) -> None:
    layers = ", ".join(each for each in LAYERS if each not in without) if level != "off" else ""
    row = f"{level:<9} {sockets:<9} {layers or 'none':<30}"
    environment = environment_for(home, FINETUI_SEAL_WITHOUT=",".join(without))
    result = json.loads(run_in_private_network(["-m", "one_battery", level, sockets, OUTSIDE], environment, user))
    if "refusal" in result:
        print(f"{row} nothing was started: {result['refusal'].splitlines()[0]}")
        return
    counts = f"{result['refused']} of {result['tried']}"
    control = "reached" if result["control"] else "not reached"
    print(f"{row} {counts:>9} {result['hits']:>5} {control:>8} {result['seconds']:>8.2f}  {_open(result, level)}")
    for each in result["broken"]:
        print(f"{'':>10}broken: {each['name']} ({each['answer']})")


def _open(result: dict[str, Any], level: str) -> str:
    names = [each["name"] for each in result["open"]]
    if level == "off":
        refused = [f"{name} ({answer})" for name, answer in result["answers"].items() if name not in names]
        return f"all but {', '.join(refused)}"
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


if __name__ == "__main__":
    main()
