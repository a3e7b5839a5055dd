"""python private_network.py [--user ID] -- COMMAND...: run COMMAND in a network of its own, as that user.

It has a loopback and nothing else, and the loopback holds OUTSIDE too, an address that looks like one of the internet
(RFC 5737 keeps it for examples). What gets out of a seal that is tried in there reaches a listener at that address, and
nothing further. Status 77: this machine lets nobody make one.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

OUTSIDE = "192.0.2.1"
ANOTHER_USER = 1001
TREE = Path(__file__).parents[3]
_IMPOSSIBLE = 77
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_SET_ADDRESS, _GET_FLAGS, _SET_FLAGS, _UP = 0x8916, 0x8913, 0x8914, 1


def run_in_private_network(
    command: Sequence[str], environment: Mapping[str, str], user: int | None = None, seconds: float = 300
) -> str:
    """The output of `python COMMAND`, as `user`. Skips the test where it cannot be done here, saying why."""
    python = interpreter_for(user)
    options = [] if user is None else ["--user", str(user)]
    done = subprocess.run(
        [sys.executable, __file__, *options, "--", *python, *command],
        env=dict(environment),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    if done.returncode == _IMPOSSIBLE:
        pytest.skip(f"no network of its own can be made here, so nothing is tried: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def interpreter_for(user: int | None) -> list[str]:
    """One that `user` may run. Skips the test where this machine has none."""
    if user is None:
        return [sys.executable]
    version = f"python3.{sys.version_info.minor}"
    for path in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        if Path(path).exists() and _is_open_to_all(Path(path).resolve()) and _is_open_to_all(TREE):
            return [path]
    pytest.skip("another user may run no Python here, or may not read this tree")


def environment_for(home: Path, **more: str) -> dict[str, str]:
    """For either interpreter: finetui and its libraries are found, and the home folder is `home`."""
    packages = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    return {
        "HOME": str(home),
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": os.pathsep.join([str(TREE), str(TREE / "tests"), str(Path(__file__).parent), *packages]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "FINETUI_HOME": str(home / "finetui"),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "OMP_NUM_THREADS": "2",
        **more,
    }


def needs_root(user: int | None) -> None:
    """Skip what only root can try: being somebody else."""
    if user is not None and os.geteuid() != 0:
        pytest.skip("only root can be another user")


def _is_open_to_all(path: Path) -> bool:
    return all(each.stat().st_mode & stat.S_IXOTH for each in (path, *path.parents))


def main(arguments: list[str]) -> None:
    at = arguments.index("--")
    try:
        _make()
    except OSError as error:
        sys.exit(_say(f"{error.strerror}"))
    if arguments[:at]:
        user = int(arguments[1])
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    command = arguments[at + 1 :]
    os.execv(command[0], command)


def _make() -> None:
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NETWORK | (_NEW_USER if user else 0)) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if user:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path(f"/proc/self/{name}").write_text(text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        _, flags = struct.unpack("16sh14x", fcntl.ioctl(control, _GET_FLAGS, struct.pack("16sh14x", b"lo", 0)))
        fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sh14x", b"lo", flags | _UP))
        address = struct.pack("=H2x4s8x", socket.AF_INET, socket.inet_aton(OUTSIDE))
        fcntl.ioctl(control, _SET_ADDRESS, struct.pack("16s16s8x", b"lo:1", address))
        assert [name for _, name in socket.if_nameindex()] == ["lo"], "there is a way out of this network"


def _say(why: str) -> int:
    print(why, file=sys.stderr)
    return _IMPOSSIBLE


if __name__ == "__main__":
    main(sys.argv[1:])
