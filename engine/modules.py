"""Our own Python modules as child processes: how they are called, and what environment they get."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from engine.offline import set_offline

_ROOT = Path(__file__).resolve().parents[1]


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs `module` with this interpreter; the folder it is started in is not searched for modules."""
    return [sys.executable, "-P", "-m", module, *arguments]


def module_environment() -> dict[str, str]:
    """This process's environment, offline, in which `module_command` finds the very code that runs here."""
    environment = dict(os.environ)
    set_offline(environment)
    # OpenMP's threads spin while they wait for each other, and on a machine whose cores are shared they take them from
    # those they wait for. A small model on four cores learned 9,400 tokens/s with the usual spinning, 8,200 with this
    # much and 4,700 with none; beside two busy processes a tenth of that or less, 4,300 and 5,200.
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", "1000")
    # GPUs numbered as the driver and nvidia-smi number them, not fastest first: the one shown is the one used.
    environment.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    # Segments that grow leave fewer holes between tensors of changing sizes. torch reads the first name, or in older
    # versions the second; whoever set either has decided.
    allocator = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
    if not any(name in environment for name in allocator):
        environment.update(dict.fromkeys(allocator, "expandable_segments:True"))
    # An installed package is found anyway, and site-packages in PYTHONPATH would come before the standard library.
    if not {"site-packages", "dist-packages"} & set(_ROOT.parts):
        known = [part for part in environment.get("PYTHONPATH", "").split(os.pathsep) if part]
        environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(_ROOT), *known]))
    return environment
