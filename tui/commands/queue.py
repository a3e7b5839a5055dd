"""`finetui queue`: the runs that wait, device by device in their order; and moving one in its line."""

from __future__ import annotations

import argparse

from engine.run.directory import find_run
from engine.run.waiting.line import MOVES, To, Waiting, move, waiting_line
from profiles.problem import Problem
from tui.commands import status
from tui.commands.output import Output, table
from tui.format import bytes_text, ordinal_text

_HEADER = ("place", "run", "device", "needs", "waits for")
_MOVES: dict[To, str] = {
    "first": "let it start before all others",
    "sooner": "let it go one place forward",
    "later": "let it go one place back",
    "last": "let it start after all others",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run",
        metavar="RUN",
        nargs="?",
        help='a run to move: "latest", its name or a part of it, or its folder; without one the line is shown',
    )
    where = parser.add_mutually_exclusive_group()
    for to in MOVES:
        where.add_argument(f"--{to}", dest="to", action="store_const", const=to, help=_MOVES[to])
    parser.add_argument("--json", action="store_true", help="print JSON (bytes as numbers)")


def run(arguments: argparse.Namespace, output: Output) -> int:
    if (arguments.run is None) != (arguments.to is None):
        raise Problem(
            "finetui queue",
            "needs a RUN to move" if arguments.run is None else f"is not told where to move {arguments.run}",
            f"Give a run together with one of {', '.join(f'--{to}' for to in MOVES)}; or neither, to see the line.",
        )
    if arguments.run is not None:
        _move(arguments.run, arguments.to, output, told=not arguments.json)
    line = waiting_line()
    if arguments.json:
        output.json([_as_dict(each) for each in line])
    elif line:
        output.lines(table(_HEADER, [_row(each) for each in line], right=("place", "needs")))
    else:
        output.line("No run waits. `finetui train … --queue` starts one that does.")
    return status.DONE


def _move(text: str, to: To, output: Output, told: bool) -> None:
    found = find_run(text)
    before = next((each.place for each in waiting_line() if each.run.name == found.name), None)
    place = move(found, to)
    if told:
        already = " already" if place == before else ""
        output.line(f"{found.name} is {ordinal_text(place)} in line{already}.")


def _row(waiting: Waiting) -> list[str]:
    why = waiting.why or "looks at the machine for the first time"
    return [str(waiting.place), waiting.run.name, waiting.device, bytes_text(waiting.needed_bytes), why]


def _as_dict(waiting: Waiting) -> dict[str, object]:
    return {
        "place": waiting.place,
        "run": waiting.run.name,
        "path": str(waiting.run.path),
        "device": waiting.device,
        "needed_bytes": waiting.needed_bytes,
        "after": waiting.after or None,
        "why": waiting.why,
    }
