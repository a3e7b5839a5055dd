"""Leaving the terminal: a process that no hang-up, log-out or death of its starter reaches."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path


def detach(log_path: Path, body: Callable[[Callable[[bytes], None]], None]) -> bytes:
    """Run `body` in a new process of its own session, with nothing on stdin and its output appended to `log_path`.

    `body` gets a function that hands one text back; `detach` returns that text in the calling process once it was
    handed over, or what was given when the new process ended without (nothing). Raises OSError when the log cannot
    be opened or no process started. To be called before any thread is started.
    """
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        os.close(log)
        with os.fdopen(reader, "rb") as answers:
            answer = answers.read()
        os.waitpid(child, 0)
        return answer
    os.close(reader)
    os.setsid()
    if os.fork():
        os._exit(0)  # so that the engine leads no session, and no terminal it opens can become its own
    os.umask(0o077)
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def ready(answer: bytes) -> None:
        os.write(writer, answer)
        os.close(writer)

    status = 1
    try:
        body(ready)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
