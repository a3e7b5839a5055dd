"""`finetui runs`: all runs, newest first."""

from __future__ import annotations

import argparse

from engine.run.summary import RunSummary, summaries
from tui.commands import status
from tui.commands.output import Output, table
from tui.commands.wording import state_words
from tui.format import duration_text, loss_text, steps_text
from tui.run_words import held_word, why_words

_HEADER = ("run", "method", "step", "loss", "held-out", "left", "state")
_RIGHT = ("step", "loss", "held-out", "left")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON (seconds and unix times as numbers)")


def run(arguments: argparse.Namespace, output: Output) -> int:
    found = summaries()
    if arguments.json:
        output.json([summary.as_dict() for summary in found])
    elif found:
        output.lines(table(_HEADER, [_row(summary) for summary in found], _RIGHT))
    else:
        output.line("No runs yet. Try: finetui demo")
    return status.DONE


def _row(summary: RunSummary) -> list[str]:
    told = summary.state in ("failed", "queued") or held_word(summary)
    why = f": {words}" if told and (words := why_words(summary.cause, summary.why)) else ""
    return [
        summary.name,
        summary.method,
        steps_text(summary.step, summary.planned_steps),
        loss_text(summary.loss, "nan" if summary.step else "-"),
        loss_text(summary.held_out_loss),
        duration_text(summary.seconds_left),
        f"{state_words(summary)}{why}",
    ]
