"""Faults of our own: logged to a file, so that what a person sees can be short."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from pathlib import Path

from engine.logged_errors import error_text
from profiles.problem import Problem


def log_fault(error: BaseException) -> Path:
    """Write where `error` came up, and nothing that quotes a person's data, to faults/ in finetui's home (else to the
    temporary folder); returns the file."""
    from engine.home import home
    from engine.run.private import private_folder

    # The command alone: what follows it may be a question to a model.
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "(the app)")
    text = f"finetui {command}\nPython {platform.python_version()}, {platform.platform()}\n\n{error_text(error)}"
    name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}.log"
    try:
        folder = home() / "faults"
        private_folder(folder)
        path = folder / name
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except (OSError, Problem):
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
