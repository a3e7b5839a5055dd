"""The sealed child that converts: `python -m engine.convert`, one JSON object on stdin, one a line on stdout.

Asked: {"folder", "files", "weight_map", "others", "into", "seconds"}. It tells {"kind": "progress", "detail", "done",
"total"} in bytes, then {"kind": "finished", "tensors", "bytes", "notes"} or {"kind": "problem", "where", "what", "fix"}
with exit status 2. It writes nothing outside `into`, and ends itself after `seconds`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

from engine.child_process import Send, end_with, limit_address_space, mapped_bytes, take_stdout
from engine.run.sealing.telling import tell_tries
from profiles.problem import Problem

# Besides what torch itself maps: a pickle's objects, buffers.
_ROOM_BYTES = 2 << 30


def main() -> int:
    send = take_stdout()
    tell_tries()
    asked = json.loads(sys.stdin.read())
    end_with(os.getppid())
    warnings.simplefilter("ignore")  # torch's, about files; what matters is told
    from engine.convert.converting import convert

    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, also in the middle of a library's call
    signal.alarm(asked["seconds"])
    largest = max((Path(asked["folder"]) / name).stat().st_size for name in asked["files"])
    # An old file is read into memory, a new one mapped; a tensor that does not lie in one piece is copied once.
    limit_address_space(mapped_bytes() + 2 * largest + _ROOM_BYTES)
    try:
        done = _convert(convert, asked, send)
    except Problem as problem:
        send("problem", **problem.as_dict())
        return 2
    send("finished", **done)
    return 0


def _convert(convert: Any, asked: dict[str, Any], send: Send) -> dict[str, Any]:
    folder = Path(asked["folder"])
    try:
        return convert(folder, asked["files"], asked["weight_map"], asked["others"], Path(asked["into"]), send)
    except MemoryError:
        what = "take more memory to open than weights of their size need"
    except RuntimeError as error:  # torch's way of saying the same
        if "alloc" not in str(error) and "memory" not in str(error):
            raise
        what = "take more memory to open than weights of their size need"
    raise Problem(f"{folder}, weights", what, "Choose a safetensors version of this model.")


if __name__ == "__main__":
    sys.exit(main())
