"""Where a process stands on its machine: its user, its control group, and what it descends from. Tests make one up."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from engine.process_stat import stat_fields

ROOT_VARIABLE = "FINETUI_SYSTEM_ROOT"
"""An environment variable with the folder to read the system's files from in place of /, for tests."""

Place = Literal["session", "manager", "service", "elsewhere"]
"""session: a log-in's scope. manager: under the user's own systemd. service: a service of the machine's. Else none."""

_SESSION_OWNER = re.compile(r"/user-(\d+)\.slice/session-[^/]+\.scope")
_MANAGER = re.compile(r"/user@\d+\.service(/|$)")
_SERVICE = re.compile(r"^/system\.slice/(?:.*/)?([^/]+\.service)")
_MOST_ANCESTORS = 256


@dataclass(frozen=True, slots=True)
class Host:
    """The machine as this process sees it. `root` is / but for tests."""

    root: Path = field(default_factory=lambda: Path(os.environ.get(ROOT_VARIABLE) or "/"))
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    user_id: int = field(default_factory=os.getuid)

    @property
    def user(self) -> str:
        """The user's name, or the number where there is none."""
        return user_name(self.user_id)

    def text(self, path: str) -> str:
        """A file of the system; empty when it is not there or not ours to read."""
        try:
            return (self.root / path).read_text(errors="replace")
        except OSError:
            return ""

    def has(self, path: str) -> bool:
        try:
            return (self.root / path).exists()
        except OSError:
            return False

    @property
    def cgroup(self) -> str:
        """The path of this process's control group in systemd's own hierarchy; / where systemd keeps none."""
        lines = [line.split(":", 2) for line in self.text("proc/self/cgroup").splitlines()]
        paths = [parts[2] for parts in lines if len(parts) == 3 and parts[1] in ("", "name=systemd")]
        return next((path for path in paths if path != "/"), "/")

    @property
    def place(self) -> Place:
        group = self.cgroup
        if _SESSION_OWNER.search(group):
            return "session"
        if _MANAGER.search(group):
            return "manager"
        return "service" if _SERVICE.search(group) else "elsewhere"

    @property
    def session_owner(self) -> str:
        """Whose log-in this is: behind su and sudo another's than the user's."""
        match = _SESSION_OWNER.search(self.cgroup)
        return user_name(int(match[1])) if match else self.user

    @property
    def service(self) -> str | None:
        """The name of the machine's service that this process belongs to."""
        match = _SERVICE.search(self.cgroup)
        return match[1] if match else None

    @property
    def in_container(self) -> bool:
        """Whether this is a container, as far as its engine marks it."""
        return self.has(".dockerenv") or self.has("run/.containerenv") or "KUBERNETES_SERVICE_HOST" in self.environment

    @property
    def in_wsl(self) -> bool:
        """Whether this is a Linux distribution that Windows runs."""
        marked = self.has("run/WSL") or self.has("proc/sys/fs/binfmt_misc/WSLInterop")
        return "microsoft" in self.text("proc/sys/kernel/osrelease").lower() and marked and not self.in_container

    def ancestors(self) -> list[int]:
        """The pids this process descends from, its parent first, as far as they can be seen."""
        found: list[int] = []
        parent = self._parent("self")
        while parent > 0 and len(found) < _MOST_ANCESTORS:
            found.append(parent)
            parent = self._parent(str(parent))
        return found

    def command(self, pid: int) -> str:
        """The name of a process; empty when it cannot be seen."""
        return self.text(f"proc/{pid}/comm").strip()

    def has_terminal(self, pid: int) -> bool:
        """Whether a terminal controls that process."""
        fields = self._status(str(pid))
        return len(fields) > 4 and fields[4] not in ("0", "-1")

    def _parent(self, pid: str) -> int:
        fields = self._status(pid)
        return int(fields[1]) if len(fields) > 1 and fields[1].isdecimal() else 0

    def _status(self, pid: str) -> list[str]:
        return stat_fields(self.text(f"proc/{pid}/stat"))


def user_name(user_id: int) -> str:
    """The name of a user, or the number: containers often run under one that has no name."""
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)
