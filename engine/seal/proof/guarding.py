"""Telling in a process's own log which line of which file tried to get out of it."""

from __future__ import annotations

import sys

from engine.seal.sealing import is_sealed


def guard_to_log() -> None:
    """From now on, in a sealed process, a line on stderr for every try of Python code to reach a network. The kernel
    refuses it either way; before anything heavy is imported."""
    if is_sealed():
        from engine.seal.proof.guard import install

        install(_tell)


def _tell(what: str, where: str) -> None:
    print(f"sealed: {what} was tried{f' in {where}' if where else ''}, and refused", file=sys.stderr, flush=True)
