"""What only Linux tells of a machine and its processes, without which nothing can be trained."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from profiles.problem import Problem

_TOLD = ("meminfo", "self/stat")


def require_kernel(proc: Path = Path("/proc")) -> None:
    """Raises Problem where the kernel does not say in `proc` what memory is free and which process is which."""
    if sys.platform != "linux":
        raise Problem(
            "this system",
            f"is {platform.system() or sys.platform}, and finetui trains on Linux only",
            "Use it on a machine, or in a virtual machine or container, that runs Linux.",
        )
    for name in _TOLD:
        try:
            (proc / name).read_bytes()
        except OSError as error:
            raise Problem(
                str(proc / name),
                f"cannot be read ({error.strerror}), where the kernel tells of memory and processes",
                f"Have an administrator mount {proc} (mount -t proc proc {proc}), or end what hides it.",
            ) from None
