"""The environment of a child process that is one core's worth of work."""

from __future__ import annotations

from engine.modules import module_environment

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "ARROW_NUM_THREADS")


def one_core_environment() -> dict[str, str]:
    """That of our modules, in which libraries start no threads of their own: beside other processes they stand in each
    other's way, and where address space is limited those of a machine with many cores take all of it."""
    return module_environment() | dict.fromkeys(_THREADS, "1") | {"TOKENIZERS_PARALLELISM": "false"}
