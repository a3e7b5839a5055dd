"""A log-in as systemd keeps it, in the kernel's own control groups, and a systemd of the user beside it: both real.

Only where control groups can be made and systemd is installed; elsewhere the test is skipped.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from waiting import wait_until

# The groups that name no resource, by which systemd knows what belongs to what: version 2's, and version 1's beside it.
_MOUNTS = tuple(map(Path, ("/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup")))
_SYSTEMD = Path("/lib/systemd/systemd")
_OWN_GROUP = (
    "import os, sys\nfor path in sys.argv[1].split(':'): open(path + '/cgroup.procs', 'w').write(str(os.getpid()))\n"
)
_ENTER = f"{_OWN_GROUP}os.execvp(sys.argv[2], sys.argv[2:])"
# systemd asks whether the machine was booted with it, in a place that only it sees here.
_BOOTED = 'mount -t tmpfs none /run && mkdir -p /run/systemd/system && exec "$0" "$@"'


@dataclass
class LogIn:
    """A log-in of this user. `root` is the folder to read the system's files from."""

    root: Path
    slices: list[Path] = field(default_factory=list)

    def session(self) -> list[Path]:
        return self._groups("session-9.scope")

    def starting(self, command: Sequence[str]) -> list[str]:
        """The command that does `command` within the log-in's session."""
        return [sys.executable, "-c", _ENTER, ":".join(map(str, self.session())), *command]

    def log_out(self) -> None:
        """End what runs in the session, as systemd does it at log-out where KillUserProcesses is on."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in _members(self.session()):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        wait_until(lambda: not _members(self.session()))

    def _groups(self, name: str) -> list[Path]:
        found = [each / name for each in self.slices]
        for path in found:
            path.mkdir(exist_ok=True)
        return found


@contextmanager
def a_log_in(*, lingering: bool) -> Iterator[LogIn]:
    """A machine with KillUserProcesses=yes where somebody is logged in, and with the user's systemd if `lingering`."""
    if os.getuid() or not _SYSTEMD.exists() or not shutil.which("systemd-run") or not shutil.which("unshare"):
        pytest.skip("needs root and systemd")
    with ExitStack() as ending:
        # A socket's path may have 107 bytes, which a test's own folder leaves little of.
        root = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="fs-")))
        (root / "proc").symlink_to("/proc")
        (root / "etc/systemd").mkdir(parents=True)
        (root / "etc/systemd/logind.conf").write_text("[Login]\nKillUserProcesses=yes\nKillExcludeUsers=\n")
        log_in = LogIn(root)
        for mount in _MOUNTS:
            if (mount / "cgroup.procs").exists():
                top = mount / f"finetui-test-{os.getpid()}"
                try:
                    (top / "user.slice/user-0.slice").mkdir(parents=True)
                except OSError:
                    pytest.skip("no control group can be made here")
                ending.callback(_remove, top)
                log_in.slices.append(top / "user.slice/user-0.slice")
        if lingering:
            (root / "var/lib/systemd/linger").mkdir(parents=True)
            (root / "var/lib/systemd/linger/root").touch()
            ending.enter_context(_systemd_of_the_user(log_in))
        yield log_in


@contextmanager
def _systemd_of_the_user(log_in: LogIn) -> Iterator[None]:
    folder = log_in.root / "run/user/0"
    folder.mkdir(parents=True, mode=0o700)
    groups = ":".join(map(str, log_in._groups("user@0.service")))
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder), "HOME": str(log_in.root)}
    bus = ["dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address=unix:path={folder}/bus"]
    systemd = ["unshare", "--mount", "sh", "-c", _BOOTED, str(_SYSTEMD), "--user", "--unit=basic.target"]
    with ExitStack() as ending:
        for command in (bus, [sys.executable, "-c", _ENTER, groups, *systemd]):
            process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            ending.callback(process.wait)
            ending.callback(process.kill)
            wait_until((folder / "bus").exists)
        wait_until((folder / "systemd/private").exists)
        yield


def _members(groups: Sequence[Path]) -> set[int]:
    return {int(pid) for group in groups for pid in (group / "cgroup.procs").read_text().split()}


def _remove(top: Path) -> None:
    """A group goes once those in it are gone, the innermost first."""
    folders = sorted((path for path in top.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts))
    for folder in [*folders, top]:
        for pid in (folder / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        wait_until(lambda folder=folder: not (folder / "cgroup.procs").read_text().split())
        folder.rmdir()
