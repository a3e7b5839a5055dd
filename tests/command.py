"""Runs the real `finetui` command as its own process, in a home of its own, for the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
ENGINE_SECONDS = 120
"""How long a command may take before a test gives it up: far more than it needs on a busy machine."""


@dataclass(frozen=True)
class Result:
    status: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        return json.loads(self.stdout)

    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.stdout.splitlines()]


@dataclass(frozen=True)
class Finetui:
    """`finetui(*arguments)` with FINETUI_HOME set to `home`; no terminal on any stream."""

    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def argv(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "tui", *(str(each) for each in arguments)]

    def environ(self) -> dict[str, str]:
        ours = ("FINETUI_", "LC_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return {
            **kept,
            "PYTHONPATH": str(REPOSITORY),
            "FINETUI_HOME": str(self.home),
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "OMP_NUM_THREADS": "2",
            **self.environment,
        }

    def __call__(self, *arguments: object, stdin: str = "", before: tuple[str, ...] = ()) -> Result:
        """Run it to its end; `before` starts it in another setting, such as with fewer rights."""
        done = subprocess.run(
            [*before, *self.argv(*arguments)],
            env=self.environ(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=ENGINE_SECONDS,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def with_environment(self, **environment: str) -> Finetui:
        return Finetui(self.home, {**self.environment, **environment})
