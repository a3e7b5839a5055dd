"""The one line that each peer's process prints for compare.py."""

from __future__ import annotations

import json
import math
import resource
import time


class Clock:
    """Wall and CPU seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        return {"seconds": time.perf_counter() - self._wall, "cpu_seconds": time.process_time() - self._cpu}


def emit(peer: str, tokens: int, times: dict[str, float], gradient_norms: list[float], losses: list[float]) -> None:
    """Print the result: real tokens seen (padding not counted), times, peak RSS. Refuses gradients that are nothing."""
    assert gradient_norms, f"{peer} reported no gradient norm"
    assert all(math.isfinite(norm) and norm > 0 for norm in gradient_norms), f"{peer}'s gradients: {gradient_norms}"
    line = {
        "peer": peer,
        "tokens": tokens,
        **times,
        "tokens_per_second": tokens / times["seconds"],
        "tokens_per_cpu_second": tokens / times["cpu_seconds"],
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "gradient_norm": gradient_norms[0],
        "loss": sum(losses) / len(losses),
    }
    print("RESULT " + json.dumps(line), flush=True)
