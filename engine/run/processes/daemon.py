"""Leaving the terminal: a process that no hang-up, log-out or death of its starter reaches."""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from engine.logged_errors import keep_data_out_of_errors, print_error
from engine.run.private import PRIVATE_UMASK

# Addresses of what ends with a log-in, a terminal, a multiplexer or a service. An engine uses none of them, and a
# library that did would find nobody there once the person has gone.
_OF_THE_SESSION = frozenset(
    {
        *("SSH_AUTH_SOCK", "SSH_AGENT_PID", "SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "SSH_ASKPASS", "GIT_ASKPASS"),
        *("GPG_AGENT_INFO", "GPG_TTY", "GNOME_KEYRING_CONTROL", "DBUS_SESSION_BUS_ADDRESS", "SESSION_MANAGER"),
        *("DISPLAY", "WAYLAND_DISPLAY", "WAYLAND_SOCKET", "XAUTHORITY", "TMUX", "TMUX_PANE", "STY", "WINDOW"),
        *("XDG_RUNTIME_DIR", "XDG_SESSION_ID", "XDG_SESSION_CLASS", "XDG_SESSION_TYPE", "XDG_SEAT", "XDG_VTNR"),
        *("VSCODE_IPC_HOOK_CLI", "VSCODE_GIT_IPC_HANDLE", "VSCODE_GIT_ASKPASS_NODE", "VSCODE_GIT_ASKPASS_MAIN"),
        *("INVOCATION_ID", "JOURNAL_STREAM", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"),
        *("WATCHDOG_PID", "WATCHDOG_USEC", "SYSTEMD_EXEC_PID", "SYSTEMD_BUS_TIMEOUT"),
    }
)
_TEMPORARY = ("TMPDIR", "TEMP", "TMP")
_SHARED_TEMPORARY = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))


def detach(log_path: Path, body: Callable[[Callable[[bytes], None]], None]) -> bytes:
    """Run `body` in a new process of its own session, with nothing on stdin and its output appended to `log_path`.

    `body` gets a function that hands one text back; `detach` returns that text in the calling process once it was
    handed over, or what was given when the new process ended without (nothing). Raises OSError when the log cannot
    be opened or no process started. To be called before any thread is started.
    """
    # Whoever started us may have it ignored, and then the kernel tells nobody how a child ended.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = _open_log(log_path)
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
    os.umask(PRIVATE_UMASK)
    keep_data_out_of_errors()
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    _close_all_but(writer)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # a starter's mask would keep SIGTERM from us for ever
    _leave_the_session()

    def ready(answer: bytes) -> None:
        with suppress(BrokenPipeError):  # the starter was killed meanwhile: the run goes on all the same
            os.write(writer, answer)
        os.close(writer)

    status = 1
    try:
        body(ready)
        status = 0
    except BaseException as error:
        print_error(error)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _open_log(path: Path) -> int:
    """The log, to append to. What a process of the run put in its place, such as a link to a file of the person's, or a
    pipe, gives way to a new one. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        log = os.open(path, flags, 0o600)
        if stat.S_ISREG(os.fstat(log).st_mode):
            return log
        os.close(log)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):  # a link; a pipe that nobody reads
            raise
    path.unlink()
    return os.open(path, flags, 0o600)


def _close_all_but(kept: int) -> None:
    """Close what a starter left open: an engine would hold its pipes, sockets and terminals for as long as it lives."""
    for entry in list(Path("/proc/self/fd").iterdir()):
        if (number := int(entry.name)) > 2 and number != kept:
            with suppress(OSError):  # the one by which the list was read
                os.close(number)


def _leave_the_session() -> None:
    """Take out of the environment what ends with the session, and folders for temporary files that go with it."""
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    for name in _TEMPORARY:
        if (given := os.environ.get(name)) and _goes_with_the_session(Path(given), Path(runtime)):
            del os.environ[name]
    tempfile.tempdir = None  # decided anew, by what is left
    for name in _OF_THE_SESSION & os.environ.keys():
        del os.environ[name]


def _goes_with_the_session(folder: Path, runtime: Path) -> bool:
    """Whether a log-in, a shell or a job made that folder for itself, and takes it away at its end."""
    return folder.is_relative_to(runtime) or any(shared in folder.parents for shared in _SHARED_TEMPORARY)
