"""`finetui ...`: finds the command, runs it, and turns what goes wrong into an exit status and a sentence.

Each command's module is imported only when asked for: `finetui runs` must not wait for what `chat` needs.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from engine.run.private import keep_to_ourselves
from profiles.problem import Problem, printable
from tui.commands import status
from tui.commands.output import Output
from tui.terminal import Terminal

COMMANDS = {
    "demo": ("tui.commands.demo", "the whole story on the bundled model and data"),
    "doctor": ("tui.commands.doctor", "is this machine ready, and what to do where it is not"),
    "hardware": ("tui.commands.hardware", "what this machine has, and who uses it"),
    "inspect": ("tui.commands.inspect", "what a model's folder or a data file is, and its faults"),
    "convert": ("tui.commands.convert", "a model whose weights are pickles, written anew with safetensors"),
    "fit": ("tui.commands.fit", "what training a model would cost here, before it is loaded"),
    "train": ("tui.commands.train", "start a run; it goes on when the terminal is closed"),
    "queue": ("tui.commands.queue", "the runs that wait, in their order; move one"),
    "runs": ("tui.commands.runs", "all runs, newest first"),
    "show": ("tui.commands.show", "what a run was asked to do and how it went"),
    "watch": ("tui.commands.watch", "follow a run; Ctrl-C leaves it going"),
    "stop": ("tui.commands.stop", "end a run after its present step, all saved"),
    "resume": ("tui.commands.resume", "continue a run from its last checkpoint"),
    "restart": ("tui.commands.restart", "end a hanging trainer, go on from the last checkpoint"),
    "chat": ("tui.commands.chat", "ask the base and the tuned model the same"),
    "export": ("tui.commands.export", "write the adapter, or the merged model, to a folder"),
    "verify": ("tui.commands.verify", "whether a run still is what was written down of it"),
    "purge": ("tui.commands.purge", "remove a run with all that is kept of it, and say what remains"),
}
_DISK_FAULTS = {
    errno.ENOSPC: "Free some space there.",
    errno.EDQUOT: "Free some of your quota there.",
    errno.EROFS: "Choose a place that can be written to; FINETUI_HOME moves finetui's own.",
    errno.EACCES: "Check the path and its permissions.",
    errno.EPERM: "Check the path and its permissions.",
    errno.ENAMETOOLONG: "Check the path: a name in it is too long for the disk.",
}


class _Parser(argparse.ArgumentParser):
    """An argparse parser that reports a wrong command line like every other problem."""

    def error(self, message: str) -> NoReturn:
        raise Problem(self.prog, printable(message, 400), f"See {self.prog} --help.")


class _Version(argparse.Action):
    """Looks the version up only when asked for it: reading the installed package's metadata takes long."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("finetui")
        except PackageNotFoundError:
            number = "(run from its source tree, not installed)"
        print(f"finetui {number}")
        parser.exit()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (this process's own by default) and return the exit status."""
    keep_to_ourselves()
    _leave_removed_folder()
    _name_home_from_the_root()
    given = list(sys.argv[1:] if arguments is None else arguments)
    output = Output.standard(Terminal.detect(ascii="--ascii" in given))
    try:
        try:
            return _run(given, output)
        except Problem as problem:
            output.problem(problem)
            return status.PROBLEM
        except KeyboardInterrupt:
            output.warn("Interrupted.")
            return status.INTERRUPTED
        except BrokenPipeError:
            raise
        except Exception as error:
            return _report(error, output)
    except BrokenPipeError:
        return _leave_broken_pipe()


def _run(given: list[str], output: Output) -> int:
    parser, module = _parser(given)
    arguments = parser.parse_args(given)
    if "doctor" not in given:  # which tells it in its own way
        _guard_home(output)
    if module is None:
        from tui.commands.app import open_app

        return open_app("home", output)
    code = module.run(arguments, output)
    assert isinstance(code, int)
    return code


def _leave_removed_folder() -> None:
    """A folder that was removed since the shell entered it has no name, by which others' would be found."""
    try:
        Path.cwd()
    except FileNotFoundError:
        os.chdir("/")


def _name_home_from_the_root() -> None:
    """What is started from here works in other folders."""
    if given := os.environ.get("FINETUI_HOME"):
        os.environ["FINETUI_HOME"] = str(Path(given).expanduser().absolute())


def _guard_home(output: Output) -> None:
    """Raises Problem where another user prepared what finetui would write to."""
    from engine.run.private_home import guard_home

    for folder in guard_home():
        output.warn(f"{printable(folder, 500)} could be looked into by other users of this machine; it is closed now")


def _parser(given: Sequence[str]) -> tuple[_Parser, ModuleType | None]:
    """The whole command line's parser, with only the asked command's arguments filled in, and its module."""
    parser = _Parser(
        prog="finetui",
        description="Fine-tune language models on your own machine. Without a command it opens the app.",
        epilog="Exit status: 0 done, 1 a check or a run failed, 2 a problem that the message tells how to fix, "
        "3 a run was stopped, 130 interrupted.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    _add_ascii(parser, default=False)
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=_Parser)
    asked = next((word for word in given if not word.startswith("-")), None)
    module = None
    if asked is not None and asked not in COMMANDS:
        close = difflib.get_close_matches(asked, COMMANDS, n=1)
        fix = f"Did you mean finetui {close[0]}?" if close else "See finetui --help."
        raise Problem("finetui", f"has no command {printable(repr(asked))}", fix)
    for name, (module_name, summary) in COMMANDS.items():
        command = commands.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False
        )
        _add_ascii(command, default=argparse.SUPPRESS)
        if name == asked:
            module = importlib.import_module(module_name)
            module.add_arguments(command)
    return parser, module


def _add_ascii(parser: argparse.ArgumentParser, default: object) -> None:
    parser.add_argument("--ascii", action="store_true", default=default, help="draw with ASCII characters only")


def _leave_broken_pipe() -> int:
    # The interpreter flushes both streams once more at exit, and would complain there.
    devnull = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            os.dup2(devnull, stream.fileno())
    return status.BROKEN_PIPE


def _report(error: Exception, output: Output) -> int:
    if isinstance(error, OSError) and error.errno in _DISK_FAULTS:
        where = printable(error.filename) if error.filename else "the output or a file"
        output.problem(Problem(where, os.strerror(error.errno), _DISK_FAULTS[error.errno]))
        return status.PROBLEM
    from tui.commands.faults import log_fault

    output.warn(f"finetui: a fault of its own, {type(error).__name__}: {printable(error, 200)}")
    output.warn(f"  where it came up is in {log_fault(error)}")
    return status.FAULT
