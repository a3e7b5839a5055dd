"""The supervisor on a kernel that says of its worker, from its second look on, that a route leads out.

python leak.py RUN_PATH
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from engine.run import supervisor
from engine.run.sealing import watch
from engine.seal.proof.evidence import Evidence
from engine.seal.proof.kernel_word import evidence

ROUTE = "0.0.0.0/0 by eth0"
_looks: list[Evidence] = []


def leaking(*arguments: Any) -> Evidence:
    _looks.append(evidence(*arguments))
    return _looks[-1] if len(_looks) == 1 else dataclasses.replace(_looks[-1], routes_out=(ROUTE,))


if __name__ == "__main__":
    watch.evidence = leaking
    sys.exit(supervisor.main(sys.argv[1:]))
