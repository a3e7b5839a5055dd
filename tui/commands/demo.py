"""`finetui demo`: the whole story on the bundled model and data, through the same engine as every run."""

from __future__ import annotations

import argparse
from pathlib import Path

import engine.demo
from engine.inputs import check_inputs
from engine.run.launch import launch
from engine.run.liveness import liveness
from engine.run.telemetry.reading import read_state
from engine.spec import RunSpec, parse_spec, read_toml, resolve_paths, set_value
from tui.commands import status
from tui.commands.app import can_open_app, open_app
from tui.commands.following import Caller, exit_status, follow, leave_going
from tui.commands.log_out import warn_of_log_out
from tui.commands.output import Output
from tui.commands.wording import measurements_table, output_lines, sample_lines
from tui.format import bytes_text
from tui.seal_words import seal_words

SPEC_FILE = Path(engine.demo.__file__).with_name("spec.toml")
_SAMPLES_SHOWN = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plain", action="store_true", help="print progress even on a terminal")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting, as in finetui train",
    )


def run(arguments: argparse.Namespace, output: Output) -> int:
    spec = demo_spec(arguments.set)
    check_inputs(spec)
    model_bytes = sum(file.stat().st_size for file in spec.model.path.iterdir())
    output.line("Teaching a small bundled model to turn clinic messages into strict JSON records.")
    output.line(f"  model {spec.model.path} ({bytes_text(model_bytes)})")
    output.line(f"  data  {spec.data.paths[0]}")
    warn_of_log_out(output)
    started = launch(spec)
    output.line(f"  run   {started.path}")
    if can_open_app(output) and not arguments.plain:
        open_app(started, output)
        if liveness(started) == "live":
            output.line(f"The demo goes on without the app. Look in again: finetui, or finetui watch {started.name}")
            return status.LEFT_GOING
        caller = Caller(started, output)  # the app has called for its end
        state = read_state(started)
    else:
        caller = Caller(started, output)
        try:
            state = follow(started, output, caller)
        except KeyboardInterrupt:
            return leave_going(started, output)
    code = exit_status(state, output, caller)
    if code == status.DONE:
        output.line()
        output.lines(measurements_table(state))
        output.lines(["", "Unseen messages, answered by the base and by the tuned model:", ""])
        output.lines(list(sample_lines(state.samples[:_SAMPLES_SHOWN], output.terminal.columns)))
        output.lines(output_lines(started, state))
        if (seal := seal_words(state)) is not None:
            output.line(seal.text)
        output.line(f"talk to it: finetui chat {started.name}")
    return code


def demo_spec(assignments: list[str]) -> RunSpec:
    """The bundled job with KEY=VALUE `assignments` applied. Raises Problem."""
    values = resolve_paths(read_toml(SPEC_FILE), SPEC_FILE.parent)
    for assignment in assignments:
        set_value(values, assignment)
    return parse_spec(values, "finetui demo")
