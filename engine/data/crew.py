"""A few light processes that do the same thing to many items: on all cores, in order, in bounded memory.

Each process is `python -m engine.data.crew` and imports nothing but what its task needs: multiprocessing would bring
the caller's own main module along, and with it torch. It speaks engine.wire with length prefixes over its stdin and
stdout, never over a network, ends when its caller ends, and what it prints is kept for the message should it die.
"""

from __future__ import annotations

import gc
import os
import queue
import struct
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from typing import IO, Any

from engine.child_process import describe_exit, end_with, last_line, limit_address_space, limit_processor_time
from engine.data.one_core import one_core_environment
from engine.logged_errors import error_text, keep_data_out_of_errors
from engine.modules import module_command
from engine.wire import from_bytes, to_bytes
from profiles.problem import Problem

_LENGTH = struct.Struct("<Q")
# Items that wait beside those being worked on, for each process: enough that none idles while its caller reads on, few
# enough that items which carry their bytes with them stay a small part of memory.
_WAITING_PER_WORKER = 2
_TRIES = 2
# What a process that tokenises takes at most, measured by tests/benchmarks/data_preparation.py, with room to spare.
_WORKER_BYTES = 400 * 2**20
# Of address space: ten times what is needed, so that a wild template or file ends its process and not the machine.
_MOST_BYTES = 4 * 2**30
# Of a processor's time for one item, which takes some seconds: for a template or a tokenizer that never ends.
_MOST_SECONDS = 300
_ENDLESS = "SIGXCPU"
_RUST = "pyo3_runtime"
_TOO_MUCH_MEMORY = Problem(
    "the data",
    f"hold a row that takes more than {_MOST_BYTES // 2**30} GiB of memory to work on",
    "Leave it out, or simplify the template that is made of it.",
)
# A process that fell silent is ending of itself, and how it does so is told.
_LAST_WORDS_SECONDS = 2.0


class CrewFault(RuntimeError):
    """A task raised what was not a Problem: a bug of ours. The text is the traceback of the process it happened in."""


def run_crew(
    task: str, setup: Any, items: Iterable[Any], workers: int, *, doing: str = "the data"
) -> Generator[Any, None, None]:
    """The results of `task` for each of `items`, in their order, from `workers` processes.

    `task` names a function as "module:function"; each process calls it once with `setup` and gets the function that
    is called with one item after another, in the process's main thread. Setup, items and results are of the kinds that
    engine.wire takes. With 0 workers all is done in the calling process. `items` are drawn as results are taken, a few
    ahead. A process that dies is replaced and its item tried once more; then a Problem about `doing` tells how it
    ended. Raises the Problems that the task raises, and CrewFault. Closing the iterator ends all processes.
    """
    if workers < 1:
        do = _load(task)(setup)
        yield from map(do, items)
        return
    crew = _Crew(task, setup, doing)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="crew")
    pending: deque[Future] = deque()
    try:
        for item in items:
            pending.append(pool.submit(crew.do, item))
            if len(pending) >= workers * (1 + _WAITING_PER_WORKER):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        crew.end()
        pool.shutdown(cancel_futures=True)


def worker_count(most: int | None = None) -> int:
    """How many processes to use: FINETUI_WORKERS where it is set, else one a core, as many as memory allows, and no
    more than `most`."""
    given = os.environ.get("FINETUI_WORKERS", "")
    if given.isdecimal() and int(given):
        count = int(given)
    else:
        import psutil  # here, since those who wait for nothing need it not

        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        count = min(cores, psutil.virtual_memory().available // 2 // _WORKER_BYTES)
    return max(1, min(count, most) if most is not None else count)


class _Crew:
    """The processes of one run_crew; `do` is called from as many threads as there are processes at most."""

    def __init__(self, task: str, setup: Any, doing: str):
        self._opening = _frame((task, setup, sys.path, os.getpid()))
        self._doing = doing
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._all: set[_Worker] = set()
        self._lock = threading.Lock()
        self._ended = False

    def do(self, item: Any) -> Any:
        frame = _frame((item,))
        for _ in range(_TRIES):
            worker = self._worker()
            answer = worker.ask(frame)
            if answer is not None:
                self._idle.put(worker)
                return _result(answer)
            ending = worker.end(_LAST_WORDS_SECONDS)
            with self._lock:
                self._all.discard(worker)
                if self._ended:
                    raise CrewFault("the crew was ended while it worked")
            if _ENDLESS in ending:
                break
        raise Problem(self._doing, f"a process that works on it {ending}", _fix(ending))

    def end(self) -> None:
        """Kill every process; whoever waits for one is told that it died."""
        with self._lock:
            self._ended = True
            workers = list(self._all)
        for worker in workers:
            worker.end()

    def _worker(self) -> _Worker:
        with suppress(queue.Empty):
            return self._idle.get_nowait()
        with self._lock:
            if self._ended:
                raise CrewFault("the crew was ended while it worked")
            worker = _Worker(self._opening)
            self._all.add(worker)
        return worker


class _Worker:
    """One process, from the caller's side. It must be started by a thread that outlives it: the kernel ends it then."""

    def __init__(self, opening: bytes):
        # A pipe would have to be emptied while nobody reads it. Closed with this object.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            module_command("engine.data.crew"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=one_core_environment(),
        )
        self._opening: bytes | None = opening

    def ask(self, frame: bytes) -> Any | None:
        """The answer to an item; None when the process is dead."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            if self._opening is not None:
                self._process.stdin.write(self._opening)
                self._opening = None
            self._process.stdin.write(frame)
            self._process.stdin.flush()
            return _read(self._process.stdout)
        except (OSError, ValueError):  # ValueError: its pipes were closed by `end`, or it answered no plain values
            return None

    def end(self, grace_seconds: float = 0.0) -> str:
        """Kill the process if it is alive after `grace_seconds`. Returns how it ended and its last words, as the end of
        a sentence."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_seconds)
        self._process.kill()
        status = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was still to be written has no reader
                    pipe.close()
        said = "" if self._log.closed else last_line(self._log)
        return describe_exit(status) + (f": {said}" if said else "")


def _frame(value: Any) -> bytes:
    data = to_bytes(value)
    return _LENGTH.pack(len(data)) + data


def _read(pipe: IO[bytes]) -> Any | None:
    """The next value; None when the other side is gone."""
    header = pipe.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        return None
    (size,) = _LENGTH.unpack(header)
    data = pipe.read(size)
    return from_bytes(data) if len(data) == size else None


def _result(answer: tuple[str, Any]) -> Any:
    kind, value = answer
    if kind == "problem":
        words, number = value
        raise Problem(**words) from (OSError(number, os.strerror(number)) if number is not None else None)
    if kind == "fault":
        raise CrewFault(value)
    return value


def _fix(ending: str) -> str:
    if _ENDLESS in ending:
        return f"Some row takes over {_MOST_SECONDS} s: simplify the chat template, or choose another tokenizer."
    if "SIGKILL" in ending:
        return "Free some memory or set FINETUI_WORKERS to a smaller number of processes, then start again."
    return "Start again; if it happens again, this is a fault of finetui."


def _panic(error: BaseException) -> Problem:
    """Without its words, which may hold some of a row; but for those of the library of regular expressions."""
    slow = "retry-limit" in str(error)
    what = "has a regular expression that takes too long for the data" if slow else "fails on the data"
    return Problem("the tokenizer", what, "Copy the tokenizer's files again, or choose another model.")


def _load(task: str) -> Callable[[Any], Callable[[Any], Any]]:
    module, _, name = task.partition(":")
    return getattr(import_module(module), name)


def _serve() -> None:
    """The process's side: answer items until there are no more."""
    wire_in = os.fdopen(os.dup(0), "rb")
    wire_out = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # whatever a library prints goes to the log
    opening = _read(wire_in)
    if opening is None:
        return
    task, setup, path, parent = opening
    end_with(parent)
    keep_data_out_of_errors()
    limit_address_space(_MOST_BYTES)
    os.environ["RUST_BACKTRACE"] = "0"  # so that the tokenizer's last line says what happened
    sys.path[:] = path
    do: Callable[[Any], Any] | None = None
    while (asked := _read(wire_in)) is not None:
        (item,) = asked
        limit_processor_time(_MOST_SECONDS)
        try:
            if do is None:
                do = _load(task)(setup)
                # Looking for garbage takes a tenth of a task's time, and there is hardly any: once an item is enough.
                gc.freeze()
                gc.disable()
            answer: tuple[str, Any] = ("done", do(item))
        except Problem as problem:
            # Behind its words the error of the system, by which a full disk is known for one.
            behind = problem.__context__
            answer = ("problem", (problem.as_dict(), behind.errno if isinstance(behind, OSError) else None))
        except MemoryError:
            answer = ("problem", (_TOO_MUCH_MEMORY.as_dict(), None))
        except Exception as error:
            answer = ("fault", error_text(error))
        except BaseException as error:
            if type(error).__module__ != _RUST:  # a panic of the tokenizer's, which is no Exception
                raise
            answer = ("problem", (_panic(error).as_dict(), None))
        wire_out.write(_frame(answer))
        wire_out.flush()
        del answer, item, asked
        gc.collect()


if __name__ == "__main__":
    with suppress(BrokenPipeError):  # the caller is gone
        _serve()
