"""A process that leads a group of its own, with which all that it started ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
from contextlib import suppress
from typing import Any


class GroupProcess(subprocess.Popen[Any]):
    """As Popen, but what is left of the process's group is killed once the process has ended, or when it is killed.

    Nobody leaves their group within a seal (layers/seccomp.py), so that nothing which a sealed process started outlives
    it. May be waited for by several threads.
    """

    def __init__(self, *arguments: Any, **keywords: Any):
        """Of Popen's keywords `start_new_session` makes a group, too. Raises OSError."""
        self._ending = threading.Lock()
        if not keywords.get("start_new_session"):
            keywords["process_group"] = 0
        super().__init__(*arguments, **keywords)

    def poll(self) -> int | None:
        """Its exit status, None while it runs."""
        with self._ending:
            if self.returncode is None and _has_ended(self.pid, 0):
                self._kill_group()
            return super().poll()

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status. Raises subprocess.TimeoutExpired after `timeout` seconds."""
        if self.returncode is None and not _has_ended(self.pid, timeout):
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        with self._ending:
            self._kill_group()
            return super().wait()

    def kill(self) -> None:
        """End it and its group, at once."""
        with self._ending:
            self._kill_group()

    def _kill_group(self) -> None:
        # The number is the group's until the process is reaped, and may be another's after that.
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


def _has_ended(pid: int, timeout: float | None) -> bool:
    """Whether our child `pid` has ended, or does so within `timeout` seconds; it is not reaped by this."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:  # reaped already, by another thread
        return True
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(None if timeout is None else timeout * 1000))
    finally:
        os.close(descriptor)
