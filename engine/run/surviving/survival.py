"""How a run is started so that it outlives logging out, and whether that holds on this machine.

systemd-logind may end what runs in a session, and the user's own systemd ends what runs under it, once the user has
logged out. With lingering that systemd stays, and a run in a scope of its own under it with it. Everywhere else a
process that left its terminal lives on.
"""

from __future__ import annotations

import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.run.surviving.host import Host
from engine.run.surviving.logind import lingers, why_session_ends

_LINGER = "Run `loginctl enable-linger` once: it keeps what you start after you log out."
_GOES_ON = "runs go on after logging out"
_SHELLS = frozenset({"ash", "bash", "busybox", "dash", "fish", "ksh", "sh", "tcsh", "zsh"})
# Small first processes of containers, which end when the one child does that they were given.
_CONTAINER_INITS = frozenset({"catatonit", "docker-init", "dumb-init", "podman-init", "tini"})
_LONGEST_NAME = 120  # a unit's name may have 255 characters


@dataclass(frozen=True, slots=True)
class Survival:
    """`way`: in a scope of its own under systemd, or as a process that left its terminal. `holds`: whether a run
    started that way goes on after logging out. `why` is the rest of a sentence; `remedy` is what to do where it does
    not hold."""

    way: Literal["scope", "fork"]
    holds: bool
    why: str
    remedy: str = ""


def survival(host: Host | None = None) -> Survival:
    """How a run that is started now is kept alive. Takes some milliseconds, seconds where the system bus hangs."""
    host = host or Host()
    if host.in_wsl:
        why = "Windows ends this Linux, and runs with it, soon after its last terminal is closed"
        return Survival("fork", False, why, "Keep a terminal of it open while a run goes on.")
    if (shell := _shell_of_container(host)) is not None:
        why = f"this container ends with its first process, {shell}, and runs with it"
        return Survival("fork", False, why, "Leave that shell open, or detach from it (in Docker: Ctrl-P Ctrl-Q).")
    place = host.place
    setting = why_session_ends(host) if place == "session" else None
    if place != "manager" and setting is None:
        return Survival("fork", True, _GOES_ON)
    if place == "manager":
        why_ends = "this terminal belongs to the user's own systemd, which ends at log-out, and runs with it"
    else:
        why_ends = f"systemd ends a session's processes here ({setting}), and runs with them"
    whose = _whose_systemd(host)
    if whose is None and not lingers(host):
        return Survival("fork", False, why_ends, _LINGER)
    if whose is not None and _systemd_run(host) is not None:
        reason = "this user lingers" if whose == "user" else "the machine's systemd keeps them"
        return Survival("scope", True, f"{_GOES_ON}: {reason}")
    if place == "manager" and lingers(host):
        return Survival("fork", True, f"{_GOES_ON}: this user lingers")
    if _systemd_run(host) is None:
        return Survival("fork", False, why_ends, "Install the command systemd-run, which is a part of systemd.")
    who = host.user
    remedy = f"Log in as {who} directly, not by su or sudo. `systemctl start user@{host.user_id}` as root starts it."
    return Survival("fork", False, f"{why_ends}; the systemd of {who} does not run", remedy)


def scope_command(name: str, command: list[str], host: Host | None = None) -> list[str]:
    """`command` in a scope of its own under systemd, which is called after the run of that `name`."""
    host = host or Host()
    unit = re.sub(r"[^A-Za-z0-9_.-]", "-", name)[:_LONGEST_NAME]
    whose = ["--user"] if _whose_systemd(host) == "user" else []
    # systemd ends a scope as a whole when the kernel ended one process of it for want of memory, unless the scope was
    # delegated. And a run's last scope may still be there when the run is resumed, hence a number of its own.
    options = ["--scope", "--quiet", "--collect", "--property=Delegate=yes"]
    return [
        *("systemd-run", *whose, *options, f"--unit=finetui-{unit}-{secrets.token_hex(4)}"),
        *(f"--description=finetui run {unit}", "--", *command),
    ]


def scope_environment(environment: dict[str, str], host: Host | None = None) -> dict[str, str]:
    """`environment`, in which systemd-run finds the user's systemd also behind su, and gives up on one that hangs."""
    folder = _runtime_folder(host or Host())
    # A bus that a desktop or dbus-launch made for one session is not the one that the user's systemd listens on.
    found = {name: value for name, value in environment.items() if name != "DBUS_SESSION_BUS_ADDRESS"}
    if folder is not None:
        found["XDG_RUNTIME_DIR"] = str(folder)
    return {**found, "SYSTEMD_BUS_TIMEOUT": "20s"}


def _shell_of_container(host: Host) -> str | None:
    """The interactive shell that the container was started for and that this process descends from."""
    if not host.in_container:
        return None
    ancestors = host.ancestors()
    if not ancestors or ancestors[-1] != 1:
        return None  # brought in from outside, as `docker exec` does
    first = 1
    if host.command(1) in _CONTAINER_INITS and len(ancestors) > 1:
        first = ancestors[-2]
    name = host.command(first).removeprefix("-")
    return name if name in _SHELLS and host.has_terminal(first) else None


def _systemd_run(host: Host) -> str | None:
    return shutil.which("systemd-run", path=host.environment.get("PATH"))


def _whose_systemd(host: Host) -> Literal["user", "machine"] | None:
    """The systemd that keeps a scope of ours after logging out; None where there is none. Root has the machine's."""
    if lingers(host) and _runtime_folder(host) is not None:
        return "user"
    return "machine" if host.user_id == 0 and host.has("run/systemd/system") else None


def _runtime_folder(host: Host) -> Path | None:
    """The folder with the socket of the user's own systemd; None when it does not run."""
    # Behind su the variable is missing, or still names the folder of the user before.
    places = [f"run/user/{host.user_id}", host.environment.get("XDG_RUNTIME_DIR", "").lstrip("/")]
    for place in filter(None, places):
        if any(host.has(f"{place}/{socket}") for socket in ("systemd/private", "bus")):
            return host.root / place
    return None
