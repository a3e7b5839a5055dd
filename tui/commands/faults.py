"""Faults of our own: logged whole to a file, so that what a person sees can be short."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
import traceback
from pathlib import Path


def log_fault(error: BaseException) -> Path:
    """Write the traceback to faults/ in finetui's home (else to the temporary folder); returns the file."""
    from engine.run.directory import home

    text = "".join(
        [
            f"finetui {' '.join(sys.argv[1:])}\n",
            f"Python {platform.python_version()}, {platform.platform()}\n\n",
            *traceback.format_exception(error),
        ]
    )
    name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}.log"
    try:
        folder = home() / "faults"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError:
        with tempfile.NamedTemporaryFile(
            "w",
            prefix="finetui-fault-",
            suffix=".log",
            delete=False,
            encoding="utf-8",
            errors="backslashreplace",
        ) as file:
            file.write(text)
        return Path(file.name)
    return path
