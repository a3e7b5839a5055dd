"""A limit of time for Python code that may never end, in whatever thread it runs.

A watching thread raises OverTime in the thread that is late; unlike SIGALRM this needs no main thread and disturbs no
one else's timers. It cannot interrupt a single long operation of the interpreter's.
"""

from __future__ import annotations

import ctypes
import threading
import time
from types import TracebackType

# A conversation of 1,000 turns takes a large template some 10 ms.
LIMIT_SECONDS = 5.0
_LOOKS_EVERY_SECONDS = 0.25


class OverTime(BaseException):
    """The code ran for more than LIMIT_SECONDS. No Exception, since libraries pass over those here and there, and it is
    raised once only."""


class _Watch:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deadlines: dict[int, float] = {}
        self._in_use = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        self._deadlines[threading.get_ident()] = time.monotonic() + LIMIT_SECONDS
        if not self._in_use.is_set():
            self._start()

    def end(self) -> None:
        """Raises OverTime when the thread was late, though it came to its end."""
        thread = threading.get_ident()
        with self._lock:
            if self._deadlines.pop(thread, None) is None:
                _interrupt(thread, None)  # OverTime was sent and has not arrived
                raise OverTime

    def cancel(self) -> None:
        """After another error than OverTime."""
        thread = threading.get_ident()
        with self._lock:
            if self._deadlines.pop(thread, None) is None:
                _interrupt(thread, None)

    def _start(self) -> None:
        with self._lock:
            self._in_use.set()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="template time limit", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            self._in_use.wait()
            time.sleep(_LOOKS_EVERY_SECONDS)
            with self._lock:
                now = time.monotonic()
                for thread, deadline in list(self._deadlines.items()):
                    if now > deadline:
                        del self._deadlines[thread]
                        _interrupt(thread, OverTime)
                if not self._deadlines:
                    self._in_use.clear()
            if self._deadlines:  # one that began between the look and the clearing
                self._in_use.set()


def _interrupt(thread: int, error: type[BaseException] | None) -> None:
    """Raise `error` in `thread` at its next step; None takes back one that has not arrived."""
    raised = ctypes.py_object(error) if error else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)


_WATCH = _Watch()


class time_limit:
    """`with time_limit():` raises OverTime in the block when it runs for more than LIMIT_SECONDS. Not to be nested."""

    __slots__ = ()

    def __enter__(self) -> None:
        _WATCH.begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            _WATCH.end()
        elif kind is not OverTime:
            _WATCH.cancel()
