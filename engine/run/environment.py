"""What a run was started on: versions, machine, interpreter. Written once, as environment.json."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

_PACKAGES = (
    "finetui",
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "accelerate",
    "tokenizers",
    "safetensors",
)
# Only variables that change what a run does; the environment at large may hold secrets.
_VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTORCH_CUDA_ALLOC_CONF")


def describe_environment() -> dict[str, Any]:
    """The interpreter, the machine and the versions of the packages (null where absent); imports none of them."""
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "host": platform.node(),
        "logical_cores": os.cpu_count(),
        "packages": {name: package_version(name) for name in _PACKAGES},
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def package_version(package: str) -> str | None:
    """The version of an installed package, without importing it; None where it is absent."""
    from importlib import metadata  # here, since a run is made seldom and this module is loaded always

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
