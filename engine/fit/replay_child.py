"""Runs in a child process: replays optimizer steps of a config's model and prints the bytes that their tensors take.

Reads {"config": config.json's values, "settings": [...], "every_layer": bool} from stdin and prints one line of JSON
for each settings: {"phases": {name: bytes}, "seconds": s} or {"problem": {...}}. What libraries print goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from typing import Any

from engine.child_process import end_with, limit_address_space
from engine.offline import set_offline
from engine.swift_imports import swift_imports
from profiles.problem import Problem
from profiles.settings import Settings

# A 70B model's layers and their fake tensors take less than 1 GB; a config that claims a million shall not fill the
# machine. Address space, of which torch maps some 10 GB that it does not use.
_ADDRESS_SPACE_BYTES = 32 << 30


def main() -> None:
    end_with(os.getppid())
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    limit_address_space(_ADDRESS_SPACE_BYTES)
    set_offline()
    # Slow to import and not needed, since fake tensors cannot use it: peft and transformers take it for absent.
    sys.modules["bitsandbytes"] = None  # type: ignore[assignment]
    warnings.filterwarnings("ignore")
    with swift_imports():
        from engine.fit.fake_step import replay_step

    request = json.load(sys.stdin)
    for values in request["settings"]:
        started = time.perf_counter()
        try:
            phases = replay_step(request["config"], _settings(values), every_layer=request["every_layer"])
            result: dict[str, Any] = {"phases": phases, "seconds": time.perf_counter() - started}
        except Problem as problem:
            result = {"problem": problem.as_dict()}
        print(json.dumps(result), file=answer, flush=True)


def _settings(values: dict[str, Any]) -> Settings:
    targets = values["targets"]
    return Settings(**{**values, "targets": targets if isinstance(targets, str) else tuple(targets)})


if __name__ == "__main__":
    main()
