"""`finetui convert MODEL --into DIR`: a model whose weights are pickles, written anew with safetensors."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from engine.convert.pickled_folder import PickledModel, find_pickles
from engine.seal.ability import ability
from engine.seal.report import SealReport
from profiles.problem import Problem, printable
from tui.commands import status
from tui.commands.output import Output
from tui.commands.progress import no_progress, progress_on
from tui.format import bytes_text, counted

# In lines that an 80-column terminal need not break.
_WHAT_A_PICKLE_IS = (
    "A pickle is a small program that rebuilds what was saved. Opened carelessly,",
    "it does whatever its author wrote.",
)
_HOW_IT_IS_OPENED = "It is opened once, in a process of its own that takes only numbers from it."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", type=Path, help="a model's folder with .bin, .pt or .pth weights")
    parser.add_argument("--into", type=Path, required=True, metavar="DIR", help="an empty or new folder")
    parser.add_argument("--yes", action="store_true", help="open the pickles without asking")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, output: Output) -> int:
    model = find_pickles(arguments.model.expanduser().absolute())
    if not arguments.yes and not _agreed(model, output):
        output.line("Nothing was opened.")
        return status.DONE
    from engine.convert.request import convert_model

    progress = no_progress if arguments.json else progress_on(output)
    done = convert_model(model, arguments.into, progress)
    output.clear_status()
    left_out = [f"{printable(name)} was left out: finetui never runs a model's code." for name in model.left_out]
    notes = [*done.notes, *left_out]
    problems = _left_problems(done.path)
    if arguments.json:
        output.json(
            {
                "path": str(done.path),
                "tensors": done.tensors,
                "bytes": done.bytes,
                "notes": notes,
                "seal": done.seal.as_dict(),
                "problems": [problem.as_dict() for problem in problems],
            }
        )
        return status.DONE
    converted = f"{counted(done.tensors, 'tensor')}, {bytes_text(done.bytes)}"
    output.line(f"converted   {converted}, each compared with the pickle's bit by bit")
    output.line(f"opened      {_seal_text(done.seal)}")
    output.lines([f"note        {note}" for note in notes])
    output.line(f"model       {done.path}")
    for problem in problems:  # of the model itself, which was written as it is
        output.problem(problem)
    return status.DONE


def _agreed(model: PickledModel, output: Output) -> bool:
    """Ask on the terminal. Raises Problem where there is none."""
    is_one = len(model.files) == 1
    files = printable(model.files[0]) if is_one else counted(len(model.files), "file")
    if not (sys.stdin.isatty() and output.live):
        raise Problem(
            str(model.folder),
            f"has pickles as weights ({files}), and there is no terminal to ask whether to open them",
            "Where you trust their source, add --yes.",
        )
    output.line(f"{files}, {bytes_text(model.weight_bytes)}, {'is a pickle' if is_one else 'are pickles'}.")
    output.lines([*_WHAT_A_PICKLE_IS, _HOW_IT_IS_OPENED, *_what_seals_it()])
    try:
        answer = input("Open it? [y/N] " if is_one else "Open them? [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in ("y", "yes")


def _what_seals_it() -> tuple[str, ...]:
    """What keeps that process in, as this machine has it."""
    found = ability()
    if not found.held:
        return ("Nothing seals that process on this machine: see `finetui doctor`.",)
    if found.missing:
        missing = " and ".join(each.layer for each in found.missing)
        return (f"It is sealed in part, without {missing}: see `finetui doctor`.",)
    return ("It is sealed: it has no network, and of your files it may change only those", "in the new folder.")


def _seal_text(seal: SealReport) -> str:
    if seal.inherited:
        return "within the seal that this command runs in"
    missing = "; ".join(f"{each.layer} is missing, since {each.why}" for each in seal.missing)
    if not seal.held:
        return f"not sealed: {missing}"
    # Where the kernel tells of each. One that was heard of is a Problem: nothing is converted then.
    silent = "; 0 attempts" if any(each.detail.get("told") for each in seal.layers) else ""
    return f"sealed: {', '.join(seal.held)}{silent}" + (f"; {missing}" if missing else "")


def _left_problems(path: Path) -> tuple[Problem, ...]:
    """What still forbids training the model: said now, not at the start of a run."""
    from profiles.geometry import inspect_model

    return inspect_model(path).problems
