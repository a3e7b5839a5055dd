"""What opening the app loads, seen from a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "transformers", "peft", "bitsandbytes", "accelerate", "numpy", "safetensors", "tokenizers"}
SLOW = {"pydantic", "psutil", "pynvml"}
"""Light enough for the app, but not before its first text."""


def modules_after(code: str) -> set[str]:
    loaded = subprocess.run(
        [sys.executable, "-c", f"{code}; import json, sys; print(json.dumps(list(sys.modules)))"],
        capture_output=True,
        check=True,
        cwd=REPOSITORY,
    )
    return {name.partition(".")[0] for name in json.loads(loaded.stdout.splitlines()[-1])}


def test_the_app_starts_without_anything_slow() -> None:
    assert not modules_after("import tui.app") & (HEAVY | SLOW)


def test_no_screen_loads_a_training_library() -> None:
    screens = (path.stem for path in (REPOSITORY / "tui/screens").glob("*.py") if path.stem != "__init__")
    names = ", ".join(f"tui.screens.{name}" for name in screens)
    assert not modules_after(f"import {names}, tui.source, engine.export.request") & (HEAVY - {"numpy"})
