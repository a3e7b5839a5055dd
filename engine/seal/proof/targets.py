"""What stands outside a seal for the probes within to aim at: doors, a secret, a pipe, a process. All of it finetui's
own, private and removed at the end; of the person's files only the names are looked up."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from engine.seal.policy.places import Places
from engine.seal.proof.listener import Listener
from engine.seal.proof.probes.aims import Aims
from engine.seal.request import Sockets

_NAME = "finetui-seal-"
_SHARED = Path("/dev/shm")
# The path of a Unix socket has 108 bytes; with `_NAME`, a process id and what mkdtemp adds these stay below.
_LONGEST_FOLDER = 60
_KEYS = (
    *(".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker/config.json", ".netrc", ".git-credentials", ".pypirc"),
    *(".npmrc", ".config/gh", ".config/gcloud", ".config/rclone", ".cache/huggingface/token", ".password-store"),
    *(".local/share/keyrings", ".mozilla", ".config/google-chrome", ".config/chromium", ".bash_history"),
)
_STARTUP = (".bashrc", ".bash_profile", ".profile", ".zshrc", ".ssh/authorized_keys", ".config/fish/config.fish")
_DEVICES = (
    # To open and close one of these does nothing: no /dev/watchdog, /dev/snapshot or tape.
    *("mem", "port", "kmsg", "net/tun", "fuse", "kvm", "vsock", "vhost-vsock", "vhost-net", "uinput", "loop-control"),
    *("mapper/control", "autofs"),
)
_MOST_DISKS = 8


class Targets:
    """For one battery, as a context."""

    def __init__(self, places: Places, ip: str = "127.0.0.1"):
        """Open it all where `places` do not reach. Raises OSError."""
        self._undo = ExitStack()
        try:
            _sweep()
            self._folders = tuple(map(self._folder, _homes_of_folders(places)))
            if not self._folders:
                raise FileNotFoundError(2, "no folder is outside of what the seal opens")
            self.listener = Listener(self._folders, ip=ip)
            self._undo.callback(self.listener.close)
            self._secret = self._folders[0] / "secret"
            self._secret.write_text(self.listener.nonce, encoding="ascii")
            os.mkfifo(self._folders[0] / "pipe", 0o600)
            # With a reader, so that whoever writes need not wait.
            self._pipe = os.open(self._folders[0] / "pipe", os.O_RDWR | os.O_NONBLOCK)
            self._undo.callback(os.close, self._pipe)
            self._shared = self._shared_memory()
            self._bystander = self._start_bystander()
        except BaseException:
            self._undo.close()
            raise

    def __enter__(self) -> Targets:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._undo.close()

    def aims(self, writable: str, sockets: Sockets) -> Aims:
        # A user without a home folder, as containers have, is "~".
        listener, home = self.listener, Path(os.path.expanduser("~"))  # noqa: PTH111
        tcp, udp = listener.address("tcp"), listener.address("udp")
        assert tcp is not None and udp is not None
        return Aims(
            nonce=listener.nonce,
            tcp=tcp,
            udp=udp,
            tcp6=listener.address("tcp6"),
            udp6=listener.address("udp6"),
            streams=listener.streams,
            datagrams=listener.datagrams,
            abstract=listener.abstract,
            abstract_datagram=listener.abstract_datagram,
            bystander=self._bystander,
            ipc=str(Path("/proc/self/ns/ipc").readlink()),
            folder=str(self._folders[0]),
            shared_memory=self._shared,
            homes=tuple(str(home / name) for name in _KEYS if os.access(home / name, os.R_OK)),
            startup=tuple(str(home / name) for name in _STARTUP if os.access(home / name, os.W_OK)),
            devices=tuple(_devices()),
            programs={name: path for name in ("bash", "curl") if (path := shutil.which(name))},
            writable=writable,
            sockets=sockets,
        )

    def control(self) -> bool:
        """Whether all of it can be reached from here."""
        return self.listener.control() and self._secret.read_text(encoding="ascii") == self.listener.nonce

    def hits(self) -> int:
        """How often something came out so far: at a door, in the pipe, as a file."""
        self.listener.take()
        made = [each.name for each in self._folders[0].iterdir() if each.name.startswith("made-")]
        piped = 0
        with suppress(BlockingIOError):
            piped = os.read(self._pipe, 1 << 16).count(self.listener.nonce.encode())
        return self.listener.hits + len(made) + piped

    def _folder(self, within: Path) -> Path:
        folder = Path(tempfile.mkdtemp(prefix=f"{_NAME}{os.getpid()}-", dir=within))
        self._undo.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder

    def _shared_memory(self) -> str:
        """A file as another process's shared memory is; "" where there is none."""
        if not os.access(_SHARED, os.W_OK):
            return ""
        descriptor, path = tempfile.mkstemp(prefix=f"{_NAME}{os.getpid()}-", dir=_SHARED)
        self._undo.callback(Path(path).unlink, missing_ok=True)
        os.write(descriptor, self.listener.nonce.encode())
        os.close(descriptor)
        return path

    def _start_bystander(self) -> int | None:
        """A process that waits, and ends with this one; None where the system has no cat."""
        program = shutil.which("cat")
        if program is None:
            return None
        process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env={"FINETUI_SEAL_NONCE": self.listener.nonce}
        )
        self._undo.enter_context(process)  # closes its input, at which it ends, and waits
        return process.pid


def _homes_of_folders(places: Places) -> Iterator[Path]:
    """Where folders may be made that the seal does not open: where programs of this machine have theirs."""
    opened = [Path(path).resolve() for path in (*places.read, *places.write)]
    for name in dict.fromkeys(("/tmp", os.environ.get("XDG_RUNTIME_DIR", ""), "/var/tmp")):
        folder = Path(name)
        if name and len(name) <= _LONGEST_FOLDER and os.access(folder, os.W_OK | os.X_OK):
            resolved = folder.resolve()
            if not any(resolved.is_relative_to(each) for each in opened):
                yield folder


def _devices() -> Iterator[str]:
    with suppress(OSError):
        lines = Path("/proc/partitions").read_text(encoding="ascii", errors="replace").splitlines()
        disks: Sequence[str] = [line.split()[3] for line in lines if len(line.split()) == 4][1 : 1 + _MOST_DISKS]
        yield from (path for name in (*disks, *_DEVICES) if Path(path := f"/dev/{name}").exists())


def _sweep() -> None:
    """Remove what a battery left that was killed."""
    for within in {Path("/tmp"), Path("/var/tmp"), Path(os.environ.get("XDG_RUNTIME_DIR", "/tmp")), _SHARED}:
        for path in within.glob(f"{_NAME}*"):
            pid = path.name.removeprefix(_NAME).partition("-")[0]
            with suppress(OSError):  # another battery sweeps too, or this one was just tidied up by its own
                if pid.isdecimal() and not Path(f"/proc/{pid}").exists() and path.lstat().st_uid == os.geteuid():
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
