"""Exceptions for a log that anybody may be shown: where they came up and what they are, without a word of the data.

Libraries quote in their messages what they failed on, which may be a person's row. What stays is the frames, with the
lines of code that they stand in, the types, and those messages that are made of no data: finetui's own problems, which
quote none, what the system, the interpreter and the GPU's libraries say, and what is said of shapes and types by code
that computes and is never given a text.
"""

from __future__ import annotations

import dis
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import IO, Any

from engine.gpu_words import words_of_gpu
from profiles.problem import Problem, printable

WHOLE_ERRORS_VARIABLE = "FINETUI_WHOLE_ERRORS"
"""The environment variable by which a person asks for whole messages: set to 1, logs may quote the data."""

_CHARACTERS = 300
# Folders of code that sees numbers alone, by the ends of their paths.
_COMPUTES = re.compile(
    r"/(?:torch/(?:nn|optim|autograd|amp|cuda|_dynamo|_inductor|_functorch|distributed|functional\.py)"
    r"|transformers/(?:models|integrations)|peft/tuners|bitsandbytes|engine/objectives)(?:/|$)"
)
# By name, since this module is imported where torch is not.
_OF_THE_DEVICE = frozenset({"OutOfMemoryError", "AcceleratorError"})
_LINKS = {"cause": "which was the reason for:", "context": "and while that was handled:"}


def words_of(error: BaseException) -> str:
    """The type of `error`, and its message where that holds no data, or a person asked for it."""
    name = type(error).__name__
    said = _message(error)
    return f"{name}: {printable(said, _CHARACTERS)}" if said else name


def error_text(error: BaseException) -> str:
    """`error` as a traceback would have it, with what it was raised from, and of messages what `words_of` tells."""
    return "".join(_lines(error))


def print_error(error: BaseException, file: IO[str] | None = None) -> None:
    """`error_text` to stderr, as far as the disk that takes it has room."""
    with suppress(OSError, ValueError):
        print(error_text(error), end="", file=file or sys.stderr, flush=True)


def keep_data_out_of_errors() -> None:
    """From now on what this process does not catch, in whatever thread, is told by `print_error`."""
    sys.excepthook = _on_uncaught
    threading.excepthook = lambda told: _on_uncaught(told.exc_type, told.exc_value, told.exc_traceback)
    sys.unraisablehook = lambda told: _on_uncaught(told.exc_type, told.exc_value, told.exc_traceback)


def _on_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> Any:
    if not issubclass(kind, SystemExit | KeyboardInterrupt):
        print_error(error if error is not None else kind().with_traceback(trace))


def _message(error: BaseException) -> str:
    if os.environ.get(WHOLE_ERRORS_VARIABLE) == "1":
        return str(error)
    if isinstance(error, Problem):
        return f"{error.where}: {error.what}"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) + (f" ({error.filename})" if error.filename else "")
    if isinstance(error, ImportError) or type(error).__name__ in _OF_THE_DEVICE:
        return str(error)
    if type(error) is RuntimeError and words_of_gpu(str(error)) is not None:
        return str(error)
    return str(error) if _is_of_the_interpreter(error) or _is_of_computing(error) else ""


def _is_of_computing(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and _COMPUTES.search(frames[-1].filename) is not None


def _is_of_the_interpreter(error: BaseException) -> bool:
    """Whether Python itself said that a name, an attribute, an argument or a type is wrong, rather than a `raise`: it
    names those, and no values."""
    if type(error) not in (TypeError, AttributeError, NameError, UnboundLocalError, RecursionError):
        return False
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last is not None and not dis.opname[last.tb_frame.f_code.co_code[last.tb_lasti]].startswith("RAISE")


def _lines(error: BaseException) -> Iterator[str]:
    seen: set[int] = set()
    chain: list[tuple[BaseException, str]] = []
    at: BaseException | None = error
    link = ""
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        chain.append((at, link))
        if at.__cause__ is not None:
            at, link = at.__cause__, "cause"
        else:
            at, link = (None if at.__suppress_context__ else at.__context__), "context"
    for each, link in reversed(chain):
        yield "Traceback (most recent call last):\n"
        yield from traceback.format_list(traceback.extract_tb(each.__traceback__))
        yield f"{words_of(each)}\n"
        if link:
            yield f"\n{_LINKS[link]}\n\n"
