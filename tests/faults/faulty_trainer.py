"""The trainer, with a library in it that fails on a row and quotes it: `python faulty_trainer.py RUN`."""

from __future__ import annotations

import sys
from typing import Any

from engine.train import measuring, worker


def _quoting(answers: list[str], expected: list[str]) -> Any:
    row = {"expected": expected[0]}
    try:
        row[f"no {expected[0]} here"]
    except KeyError as error:
        error.add_note(f"while {expected[0]!r} was judged")
        raise ValueError(f"could not judge {row}") from error


measuring.exact_match = _quoting  # type: ignore[assignment]
sys.exit(worker.main())
