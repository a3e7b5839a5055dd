"""How the app leaves when it is ended from outside: by a signal, or because its terminal is gone.

It leaves as it would by its own key, so that the terminal is as it was before, and then ends by the signal that asked
for it. Where that takes too long, because nobody reads what it writes any more, it ends all the same.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import termios
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from textual.drivers.linux_driver import LinuxDriver

GRACE_SECONDS = 3.0
"""How long leaving may take: a screen over a slow line takes about one."""

_TRIES, _TRY_SECONDS = 100, 0.01
"""Of writing to a terminal that may take nothing at all."""

# Taken back, in this order: a sequence that was begun, whole frames, mouse, pasting, resizing, line wrap, keyboard,
# second screen, cursor, focus.
_AS_BEFORE = (
    b"\x18\x1b[?2026l\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[?1016l\x1b[?2004l\x1b[?2048l\x1b[?7h\x1b[<u"
    b"\x1b[?1049l\x1b[?25h\x1b[?1004l"
)


class AppDriver(LinuxDriver):
    """Textual's driver, for a terminal that may go away, and a process that may be stopped and go on at any time."""

    suspended = False
    """The app waits in the background, and the terminal is as it was before."""
    _was_given, _is_used = False, False
    """The terminal was ours once; and is now."""

    def write(self, data: str) -> None:
        # The thread that writes ends with its terminal; what is put into its queue then fills that, and blocks.
        if self._writer_thread is not None and self._writer_thread.is_alive():
            super().write(data)

    def suspend_application_mode(self) -> None:
        super().suspend_application_mode()
        self.suspended = True

    def resume_application_mode(self) -> None:
        self.suspended = False
        super().resume_application_mode()
        self.suspended = not self._is_used

    def start_application_mode(self) -> None:
        super().start_application_mode()
        # In the background it is not given, and Textual tries again with the next SIGCONT.
        self._is_used = self._key_thread is not None and self._key_thread.is_alive()
        self._was_given = self._was_given or self._is_used

    def stop_application_mode(self) -> None:
        self._is_used = False
        super().stop_application_mode()

    def _sigcont_application(self, *_: object) -> None:
        # On the loop, so that a SIGTERM that was sent along, before or after, is heard first.
        with suppress(RuntimeError):  # there is none any more: the app is being left
            asyncio.get_running_loop().call_soon_threadsafe(self._take_terminal)

    def _take_terminal(self) -> None:
        """After a SIGCONT. A SIGSTOP left no time to give the terminal back, and whoever had it meanwhile, a shell say,
        may have set and drawn what it wanted; systemd sends SIGCONT to who was never stopped. To start again what runs
        would leave two threads that read the keys, and the terminal raw in the end."""
        if not self._auto_restart:
            return
        if self._is_used:
            self.suspend_application_mode()
            self._must_signal_resume = True
        if self.suspended or not self._was_given:  # else the app is being left
            self.resume_application_mode()

    def restore_at_once(self) -> None:
        """Put the terminal back without waiting for it; what it has not read yet is dropped. The process is to end."""
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # from the background, setting a terminal would stop us
        signal.signal(signal.SIGALRM, lambda number, frame: None)
        with suppress(termios.error, OSError):
            terminal = os.open("/dev/tty", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            if self.attrs_before is not None:
                termios.tcsetattr(terminal, termios.TCSANOW, self.attrs_before)
            # From here on what still waits to be written goes nowhere.
            if self._file is not None:
                os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), self._file.fileno())
            for _ in range(_TRIES):
                # While one thread waits in a write no other may write; a signal calls it back from there.
                writer = self._writer_thread
                if writer is not None and writer.ident is not None and writer.is_alive():
                    signal.pthread_kill(writer.ident, signal.SIGALRM)
                time.sleep(_TRY_SECONDS)
                termios.tcflush(terminal, termios.TCOFLUSH)
                with suppress(BlockingIOError):
                    if os.write(terminal, _AS_BEFORE) == len(_AS_BEFORE):
                        break


class OutsideEnd:
    """Ends an app in order when a signal asks for that or its terminal hangs up. For the main thread."""

    def __init__(self, leave: Callable[[], object], driver: Callable[[], object]):
        """`leave` ends the app, called on its event loop; `driver` gives its driver, if it has one yet."""
        self._leave, self._driver = leave, driver
        self._loop: asyncio.AbstractEventLoop | None = None
        self._signal: int | None = None

    def listen(self) -> None:
        """From now on. A SIGHUP that is ignored by inheritance is heard, too: without its terminal an app would spin
        on the end of its input."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._asked)

    def begin(self) -> None:
        """The event loop runs and has the terminal."""
        self._loop = asyncio.get_running_loop()
        driver = self._driver()
        if isinstance(driver, AppDriver) and driver.input_tty:
            threading.Thread(target=self._wait_for_hang_up, args=(driver.fileno,), daemon=True).start()

    def finish(self) -> None:
        """The app was left; end by the signal that asked for it, if one did."""
        if self._signal is not None:
            signal.signal(self._signal, signal.SIG_DFL)
            os.kill(os.getpid(), self._signal)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            return
        self._signal = number
        driver = self._driver()
        if not isinstance(driver, AppDriver) or driver.suspended:
            self.finish()
            return
        if self._loop is None:  # the app is being started, and may have the terminal already
            driver.restore_at_once()
            self.finish()
            return
        # The main thread may wait until its output is read; a signal still reaches it.
        signal.signal(signal.SIGALRM, self._out_of_patience)
        signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)
        with suppress(RuntimeError):  # the loop is closed: the app is being left already
            self._loop.call_soon_threadsafe(self._leave)

    def _out_of_patience(self, number: int, frame: FrameType | None) -> None:
        driver = self._driver()
        if isinstance(driver, AppDriver):
            driver.restore_at_once()
        self.finish()

    def _wait_for_hang_up(self, terminal: int) -> None:
        # Only the session's leader and its foreground get SIGHUP. Without anything asked for, poll tells only of this.
        hung_up = select.poll()
        hung_up.register(terminal, 0)
        hung_up.poll()
        os.kill(os.getpid(), signal.SIGHUP)
