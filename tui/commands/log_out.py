"""What is said before a run is started, where logging out or the session's limits would end it."""

from __future__ import annotations

from tui.commands.output import Output


def warn_of_log_out(output: Output) -> None:
    """Say it on standard error; nothing where a run just goes on."""
    from engine.run.surviving.session_limits import cautions_before_start  # here: not every command starts a run

    for caution in cautions_before_start():
        output.warn(f"warning: {caution.what}")
        output.warn(f"  {caution.remedy}")
