"""What a sealed child of ours does first."""

from __future__ import annotations

from engine.run.sealing.lines import tell_from_environment
from engine.seal.proof.guarding import guard_to_log


def tell_tries() -> None:
    """From now on whoever started this process sealed hears which line of Python code tries to reach a network, and its
    log has it; before anything heavy is imported. What other code tries, the kernel tells."""
    guard_to_log(tell_from_environment())
