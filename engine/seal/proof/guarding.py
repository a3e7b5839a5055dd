"""Telling which line of which file tried to get out of a process: in its own log, and to who listens."""

from __future__ import annotations

import sys
from collections.abc import Callable

from engine.seal.sealing import is_sealed


def guard_to_log(also: Callable[[str, str], None] | None = None) -> None:
    """From now on, in a sealed process, a line on stderr for every try of Python code to reach a network, and a call of
    `also` with what was tried and where. The kernel refuses it either way; before anything heavy is imported."""
    if not is_sealed():
        return
    from engine.seal.proof.guard import install

    def tell(what: str, where: str) -> None:
        if also is not None:
            also(what, where)
        print(f"sealed: {what} was tried{f' in {where}' if where else ''}, and refused", file=sys.stderr, flush=True)

    install(tell)
