"""A look at data with a person's own templates, in a process of its own: a template may ask for any amount of memory
in a single operation, which only the system can refuse. `python -m engine.data.preview_child`, pickles in and out.
"""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

from engine.data.rows import shown
from engine.data.source import Source
from engine.modules import module_command, module_environment
from profiles.problem import Problem

if TYPE_CHECKING:
    from engine.data.preview import DataPreview

_ADDRESS_SPACE_BYTES = 2 << 30
"""A look takes some 100 MiB, and what pyarrow reserves without using it."""
_LIMIT_SECONDS = 60.0
"""A look takes some seconds at most; of a template that is that slow 16 MiB of rows would take hours to prepare."""


def preview_apart(source: Source, limit_bytes: int) -> DataPreview:
    """`preview` in a child. Raises what it raises there, and Problem when the child takes too long or dies."""
    try:
        done = subprocess.run(
            module_command("engine.data.preview_child"),
            input=pickle.dumps((source, limit_bytes)),
            capture_output=True,
            env=module_environment(),
            timeout=_LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        what = f"has templates that were not done with its first rows in {_LIMIT_SECONDS:.0f} seconds"
        raise Problem(shown(source.path), what, "Write the templates more simply.") from None
    if done.returncode:
        what = f"has templates that ended the process they ran in (status {done.returncode})"
        raise Problem(shown(source.path), what, "Write the templates more simply.")
    found = pickle.loads(done.stdout)
    if isinstance(found, Problem):
        raise found
    return found


def main() -> None:
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no part of the answer
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    from engine.data.preview import preview_here

    source, limit_bytes = pickle.load(sys.stdin.buffer)
    found: DataPreview | Problem
    try:
        found = preview_here(source, limit_bytes)
    except Problem as problem:
        found = problem
    pickle.dump(found, answer)
    answer.close()


if __name__ == "__main__":
    main()
