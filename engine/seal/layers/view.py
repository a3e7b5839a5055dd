"""What of the file system is shown: a root of its own, in which there is what was named, under the names by which it
was called, and nothing else. It is a list of what there is, not of what is hidden: sockets, keys and other people's
files need not be known to be out of reach, also for what Landlock does not look at (chmod, connect to a path)."""

from __future__ import annotations

import ctypes
import errno
import os

from engine.seal.layers import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SCRATCH = ("/tmp", "/var/tmp", "/dev/shm")
"""Come back empty, writable and private; in memory, half of the machine's at most, which is what /dev/shm has anyway
and torch's shared tensors need."""
_LINKS = {"/dev/fd": "/proc/self/fd", "/dev/stdin": "fd/0", "/dev/stdout": "fd/1", "/dev/stderr": "fd/2"}
_READ, _WRITE, _EMPTY = range(3)
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES)
"""Or not for this user, sealed or not."""
_MOST_LINKS = 40
"""On one path, as in the kernel."""

_READ_ONLY, _NO_SETUID, _NO_DEVICES, _NO_EXECUTION = 1, 2, 4, 8
_REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 32, 4096, 16384, 1 << 18
_DETACH = 2
_HERE, _ALL_BELOW = -100, 0x8000  # AT_FDCWD, AT_RECURSIVE


class _Attributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "cleared", "propagation", "user_namespace")]


class View:
    """What is to be shown, found out before anything is covered."""

    def __init__(self, read: Iterable[str], write: Iterable[str]) -> None:
        self.places: dict[str, int] = {}
        """By real path: how it is shown."""
        self.links: dict[str, str] = dict(_LINKS)
        self._passed: list[str] = []
        """Folders that a path goes into and out of again, which must be there for that."""
        self._no_links: set[str] = set()
        """What many paths lead through, asked for once."""
        self._made: set[str] = set()
        for path in read:
            self._name(path, _READ)
        for path in write:
            self._name(path, _EMPTY if path in SCRATCH else _WRITE)
        for path in SCRATCH:
            if os.path.isdir(path):
                self._name(os.path.realpath(path), _EMPTY)
        self.gaps: list[str] = []
        self._base, self._beneath = "", -1
        """Where the new root is put together, and what that covers."""

    def show(self, empty: Iterable[str]) -> list[str]:
        """Make it this process's root, in a mount namespace of its own; the paths that are shown. `gaps` says then what
        could not be done, each the end of a sentence. `empty`: folders that are made where nothing shows them. Raises
        OSError where files are as they were."""
        linux.mount(None, "/", None, _RECURSIVE | _PRIVATE)
        self._pass_over_what_is_not_there()
        self._base = base = next(each for each in ("/tmp", "/run", "/dev/shm", "/usr") if os.path.isdir(each))
        self._beneath = os.open(base, os.O_PATH | os.O_CLOEXEC)
        try:
            linux.mount("tmpfs", base, "tmpfs", _NO_SETUID | _NO_DEVICES, "mode=755")
            try:
                shown = self._fill(base, empty)
                _make_root(base)
            except OSError:
                linux.call("umount2", os.fsencode(base), _DETACH)
                raise
        finally:
            os.close(self._beneath)
        return shown

    def _fill(self, base: str, empty: Iterable[str]) -> list[str]:
        shown = []
        for path in sorted(self.places):
            if self._shown_already(path):
                continue
            try:
                self._put(path, base + path if path != "/" else base)
                shown.append(path)
            except OSError as error:
                self.gaps.append(f"{path} is not shown: {error.strerror}")
        for path, target in self.links.items():
            self._link(base, path, target)
        for path in (*self._passed, *empty):
            # A variable's value may be anything: what is no path from the root would be made beside the new one.
            if path.startswith("/"):
                self._make_folder(base + os.path.normpath(path))
        linux.mount(None, base, None, _REMOUNT | _BIND | _READ_ONLY | _NO_SETUID | _NO_DEVICES)
        return shown

    def _name(self, path: str, how: int) -> None:
        """Follow `path` as the kernel would, to its last part: links on the way are made anew, and so is what is a link
        itself, which shows nothing of what it leads to."""
        real, rest, links = "", [part for part in path.split("/") if part not in ("", ".")], 0
        while rest:
            part = rest.pop(0)
            if part == "..":
                self._passed.append(real)
                real = real.rpartition("/")[0]
                continue
            here = f"{real}/{part}"
            if here in self._no_links:
                real = here
                continue
            try:
                target = os.readlink(here)
            except OSError:
                self._no_links.add(here)
                real = here
                continue
            self.links[here] = target
            links += 1
            if not rest or links > _MOST_LINKS:
                return
            if target.startswith("/"):
                real = ""
            rest = [part for part in target.split("/") if part not in ("", ".")] + rest
        real = real or "/"
        self.places[real] = max(how, self.places.get(real, _READ))

    def _pass_over_what_is_not_there(self) -> None:
        for path, how in list(self.places.items()):
            if how == _EMPTY:
                continue
            try:
                os.stat(path)
            except OSError as error:
                if how == _WRITE or error.errno not in _NOT_THERE:
                    self.gaps.append(f"{path} is not shown: {error.strerror}")
                del self.places[path]

    def _source(self, path: str) -> str:
        """Where `path` is found now. One descriptor leads to all that is covered, since a person's limit of them may be
        lower than the places are many."""
        if path == self._base or path.startswith(self._base + "/"):
            return f"/proc/self/fd/{self._beneath}{path[len(self._base) :]}"
        return path

    def _put(self, path: str, at: str) -> None:
        how = self.places[path]
        if how == _EMPTY:
            self._make_folders(at)
            linux.mount("tmpfs", at, "tmpfs", _NO_SETUID | _NO_DEVICES, "mode=1777")
            return
        source = self._source(path)
        if not os.path.lexists(at):
            self._make_folders(os.path.dirname(at))
            if os.path.isdir(source):
                os.mkdir(at)
            else:
                os.close(os.open(at, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        linux.mount(source, at, None, _BIND | _RECURSIVE)
        # /proc too, from where root could have the kernel run programs outside (core_pattern) or shut out everybody
        # (chmod); and devices, which can be written to all the same, but not be shut to others.
        if how == _READ:
            _make_read_only(at)

    def _shown_already(self, path: str) -> bool:
        """Whether the folder that it lies in is shown in the same way. What may only be read within one that may be
        written keeps its content so; what may be written within one that may only be read can be."""
        how = self.places[path]
        while path != "/":
            path = os.path.dirname(path)
            if path in self.places:
                return self.places[path] == how != _EMPTY
        return False

    def _link(self, base: str, path: str, target: str) -> None:
        at = base + path
        if os.path.lexists(at):
            return
        try:
            self._make_folders(os.path.dirname(at))
            os.symlink(target, at)
        except OSError as error:
            self.gaps.append(f"{path} is not shown: {error.strerror}")

    def _make_folder(self, at: str) -> None:
        """As far as that can be; what needs it will say so."""
        try:
            self._make_folders(at)
        except OSError:
            pass

    def _make_folders(self, at: str) -> None:
        """`at` and those above it, which many places share. Raises OSError."""
        if at not in self._made:
            os.makedirs(at, exist_ok=True)
            self._made.add(at)


def _make_root(base: str) -> None:
    os.chdir(base)
    try:
        linux.call("pivot_root", b".", b".")
        linux.call("umount2", b".", _DETACH)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # What the machine was started from (an initial RAM disk) can be left only so.
        linux.call("chroot", b".")
    os.chdir("/")


def _make_read_only(path: str) -> None:
    """The mount at `path`, and those below it where the kernel can (5.12). Raises OSError."""
    only = _Attributes(_READ_ONLY, 0, 0, 0)
    try:
        linux.call("mount_setattr", _HERE, os.fsencode(path), _ALL_BELOW, ctypes.byref(only), ctypes.sizeof(only))
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        # Flags that were set before this namespace are locked, and leaving one out would be refused. statvfs tells them
        # by mount's own numbers.
        locked = os.statvfs(path).f_flag & (_NO_SETUID | _NO_DEVICES | _NO_EXECUTION)
        linux.mount(None, path, None, _REMOUNT | _BIND | _READ_ONLY | locked)
