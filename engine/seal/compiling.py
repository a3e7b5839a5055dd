"""Python's compiled modules, kept for sealed processes where an installation has them not beside its sources.

A run's own processes may not write them, since those of other runs execute them: so a process does that reads nothing
of anybody's.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from engine.modules import module_environment
from engine.seal.policy.caches import bytecode
from engine.seal.policy.environment import is_compiled
from engine.seal.policy.places import computing_places
from engine.seal.sealing import run_sealed

# What every trainer loads; the first is what takes the time, and stands for all.
_MODULES = ("torch", "transformers", "peft", "accelerate", "pyarrow.parquet", "tokenizers", "engine.train.worker")
# Compiling them takes some 15 s, on a busy machine or a network disk some minutes.
_SECONDS = 300.0


def compile_libraries() -> None:
    """Have them compiled, unless they are already: once for each version of torch. Where that fails each process
    compiles for itself."""
    if is_compiled() or _is_kept(_MODULES[0]):
        return
    command = [sys.executable, "-P", "-c", f"import {', '.join(_MODULES)}"]
    # Images of containers have it set, so that nothing is written beside the sources: nothing is. With it this would
    # be done at every start, to no end.
    environment = {name: value for name, value in module_environment().items() if name != "PYTHONDONTWRITEBYTECODE"}
    with suppress(OSError, subprocess.TimeoutExpired):
        run_sealed(command, computing_places(), timeout_seconds=_SECONDS, env=environment)


def _is_kept(module: str) -> bool:
    """Whether `module` lies compiled in the cache as its source is now."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return True  # there is nothing to compile
    source = Path(spec.origin)
    # As Python itself names it under a prefix (importlib.util.cache_from_source), and after PEP 552: magic number,
    # flags, then when the source was changed.
    kept = bytecode() / source.parent.relative_to("/") / f"{source.stem}.{sys.implementation.cache_tag}.pyc"
    try:
        with kept.open("rb") as file:
            changed = file.read(12)[8:]
        return int.from_bytes(changed, "little") == int(source.stat().st_mtime) & 0xFFFFFFFF
    except OSError:
        return False
