"""What systemd's log-in manager does with a user's processes when a session ends."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from engine.run.surviving.host import Host

# Later ones win, for the main file and for drop-ins of one name.
_FOLDERS = ("usr/lib", "usr/local/lib", "run", "etc")
_PATIENCE_SECONDS = 3  # logind answers within milliseconds
_ASK = (
    *("busctl", "--system", "--no-pager", f"--timeout={_PATIENCE_SECONDS}", "get-property", "org.freedesktop.login1"),
    *("/org/freedesktop/login1", "org.freedesktop.login1.Manager", "KillUserProcesses"),
)


def why_session_ends(host: Host) -> str | None:
    """The setting by which logind ends what runs in this log-in's session; None when it leaves that alone."""
    settings = _settings(host.root)
    # Hardened machines have this. An idle session is ended with all its processes, whatever the next setting says.
    if settings.get("StopIdleSessionSec", "infinity").lower() not in ("", "infinity"):
        return f"StopIdleSessionSec={settings['StopIdleSessionSec']}"
    user = host.session_owner
    if user in settings.get("KillExcludeUsers", "root").split():
        return None
    if only := settings.get("KillOnlyUsers", "").split():
        return "KillOnlyUsers" if user in only else None
    return "KillUserProcesses=yes" if _kills(host, settings) else None


def lingers(host: Host) -> bool:
    """Whether this user's own systemd stays when the user has logged out."""
    return host.has(f"var/lib/systemd/linger/{host.user}")


def _kills(host: Host, settings: dict[str, str]) -> bool:
    """What logind goes by, which knows the distribution's default too; where it cannot be asked, what is configured."""
    if host.has("run/dbus/system_bus_socket"):
        try:
            asked = subprocess.run(
                _ASK,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                env=dict(host.environment),
                timeout=2 * _PATIENCE_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            pass
        else:
            if asked.stdout.split() in (["b", "true"], ["b", "false"]):
                return asked.stdout.split()[1] == "true"
    return settings.get("KillUserProcesses", "no").lower() in ("yes", "true", "1", "on", "y", "t")


def _settings(root: Path) -> dict[str, str]:
    """The [Login] settings that are given: drop-ins win over the main file. Lists add up, an empty one begins anew."""
    found: dict[str, str] = {}
    for path in _files(root):
        for name, value in _assignments(path):
            if value and name in ("KillOnlyUsers", "KillExcludeUsers"):
                value = f"{found.get(name, '')} {value}".strip()
            found[name] = value
    return found


def _files(root: Path) -> list[Path]:
    folders = [root / each / "systemd" for each in _FOLDERS]
    main = next((folder / "logind.conf" for folder in reversed(folders) if (folder / "logind.conf").exists()), None)
    drop_ins = {path.name: path for folder in folders for path in (folder / "logind.conf.d").glob("*.conf")}
    return [*([main] if main else []), *(drop_ins[name] for name in sorted(drop_ins))]


def _assignments(path: Path) -> Iterator[tuple[str, str]]:
    section = "Login"
    try:
        lines = path.read_text(errors="replace").replace("\\\n", " ").splitlines()
    except OSError:
        return
    for line in map(str.strip, lines):
        if line.startswith("["):
            section = line.strip("[]")
        elif section == "Login" and not line.startswith(("#", ";")) and "=" in line:
            name, _, value = line.partition("=")
            yield name.strip(), value.strip()
