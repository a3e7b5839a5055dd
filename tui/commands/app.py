"""Opens the Textual app."""

from __future__ import annotations

import sys
from typing import Literal

from engine.run.directory import RunDirectory
from profiles.problem import Problem
from tui.commands.output import Output


def can_open_app(output: Output) -> bool:
    """Whether a person sits at a terminal that the app can draw on. It draws on standard error."""
    return output.live and sys.stdin.isatty() and sys.stderr.isatty()


def open_app(start: Literal["home"] | RunDirectory, output: Output) -> int:
    """Run the app until the person leaves it; runs go on. Raises Problem where there is no terminal."""
    if not can_open_app(output):
        raise Problem(
            "finetui",
            "the app needs a terminal that can move its cursor, for input, output and errors",
            "Use a command instead, such as finetui runs or finetui watch latest; see finetui --help.",
        )
    from tui.app import FinetuiApp

    app = FinetuiApp(start=start, terminal=output.terminal)
    app.run()
    return app.return_code or 0
