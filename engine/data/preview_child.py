"""A look at data with a person's own templates, in a process of its own: a template may ask for any amount of memory
in a single operation, which only the system can refuse. `python -m engine.data.preview_child`, engine.wire in and out.
"""

from __future__ import annotations

import os
import sys

from engine.child_process import end_with, limit_address_space
from engine.data.preview import DataPreview, preview_here
from engine.run.sealing.telling import tell_tries
from engine.wire import from_bytes, to_bytes
from profiles.problem import Problem

_ADDRESS_SPACE_BYTES = 2 << 30
"""A look takes some 100 MiB, and what pyarrow reserves without using it."""


def main() -> None:
    end_with(os.getppid())
    tell_tries()
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no part of the answer
    limit_address_space(_ADDRESS_SPACE_BYTES)
    source, limit_bytes = from_bytes(sys.stdin.buffer.read())
    found: DataPreview | Problem
    try:
        found = preview_here(source, limit_bytes)
    except Problem as problem:
        found = problem
    answer.write(to_bytes(found))
    answer.close()


if __name__ == "__main__":
    main()
