"""What ties a worker to its supervisor: it saves and ends when that is gone, and nothing keeps it from ending.

A closed channel is a stop to the recipe, which finishes its step, saves and ends. Beside that two things watch, since a
worker that nobody hears must not hold a GPU for ever. A thread ends one that has nothing to save at once, and gives one
that has a time for it. And the kernel sets an alarm when the supervisor ends, which needs no Python: it also ends a
worker whose native code never lets a thread of Python's run again.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import threading
import time
from typing import NoReturn

from engine.child_process import signal_on_parent_death

SUPERVISOR_VARIABLE = "FINETUI_SUPERVISOR"
"""The environment variable that has the supervisor's pid."""

SAVING_SECONDS = 600
"""The end of the step, and the save: the 80 GB of a 7B model and its optimizer on a disk that writes 150 MB/s."""

# The C library's `alarm` is the handler of the signal that tells of the supervisor's death, and what a handler is given
# is the number of its signal: so it is the seconds, too, within which the thread below has to be heard of. A real-time
# signal that no library uses; the largest but few, since a native call may well hold Python for a while.
_NOTICE_SIGNAL = 60


class Leash:
    """The tie, from the worker's side. Loose until it is told to whom."""

    def __init__(self) -> None:
        self._may_save = False

    @classmethod
    def from_environment(cls) -> Leash:
        """To the supervisor that said in the environment that it is this process's; loose where none did."""
        leash = cls()
        if number := os.environ.pop(SUPERVISOR_VARIABLE, ""):
            leash.tie(int(number))
        return leash

    def tie(self, supervisor_pid: int) -> None:
        """To the process that started this one. Ends this process where that is gone already."""
        _set_alarm_on_parent_death()
        try:
            supervisor = os.pidfd_open(supervisor_pid)
        except ProcessLookupError:
            _end_group()
        if os.getppid() != supervisor_pid:
            _end_group()
        threading.Thread(target=self._outlast, args=(supervisor,), daemon=True, name="leash").start()

    def let_save(self) -> None:
        """From now on there may be something to save."""
        self._may_save = True

    def _outlast(self, supervisor: int) -> None:
        poll = select.poll()
        poll.register(supervisor, select.POLLIN)
        poll.poll()
        deadline = time.monotonic() + SAVING_SECONDS
        while self._may_save and (left := deadline - time.monotonic()) > 0:
            # Over and over, since a main thread that waits for a disk sets the kernel's alarm only after that.
            signal.alarm(max(1, round(left)))
            time.sleep(1)
        _end_group()


def _set_alarm_on_parent_death() -> None:
    library = ctypes.CDLL(None)
    library.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    library.signal(_NOTICE_SIGNAL, ctypes.cast(library.alarm, ctypes.c_void_p))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (_NOTICE_SIGNAL, signal.SIGALRM))
    signal_on_parent_death(_NOTICE_SIGNAL)


def _end_group() -> NoReturn:
    """End this process at once, and what it started where it leads a group of its own."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)
