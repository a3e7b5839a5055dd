"""Runs in a child process: reads the tokenizer of the model's folder given as argument with transformers, and writes
what text needs of it to stdout as JSON, or {"problem": {"where", "what", "fix"}}.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.child_process import end_with, limit_address_space, limit_processor_time, mapped_bytes
from engine.offline import set_offline
from profiles.problem import Problem

# Beside what the libraries map. The largest vocabularies (256,000 tokens) take 2 GB while they are read; a file that
# claims more shall not fill the machine.
_ROOM_BYTES = 4 << 30
# Reading takes a few seconds, on a slow processor a minute.
_MOST_SECONDS = 120


def main() -> None:
    from engine.data.tokens.reference import describe_folder

    answering(_described_and_used, describe_folder)


def answering(tell: Callable[..., dict[str, Any]], *libraries: Any) -> None:
    """Write what `tell` says of the folder that was asked about, within limits of time and memory. `libraries` are its
    further arguments: what it reads with, imported before the limits hold."""
    end_with(os.getppid())
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no part of the answer
    set_offline()
    os.environ["RUST_BACKTRACE"] = "0"  # so that the last line says what happened
    limit_address_space(mapped_bytes() + _ROOM_BYTES)
    limit_processor_time(_MOST_SECONDS)
    try:
        told = tell(Path(sys.argv[1]), *libraries)
    except Problem as problem:
        told = {"problem": problem.as_dict()}
    json.dump(told, answer)
    answer.close()


def _described_and_used(path: Path, describe_folder: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """The description, of which whoever asked will make a TextTokenizer: where that goes wrong, it does so here."""
    from engine.data.tokens.text_tokenizer import Description, TextTokenizer

    told = describe_folder(path)
    TextTokenizer(str(path), Description.from_dict(told))
    return told


if __name__ == "__main__":
    main()
