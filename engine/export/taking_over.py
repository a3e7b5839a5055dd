"""What an export's process left, looked at before it is a person's: that process read files that may be hostile, and is
not believed. No torch.

Taken over are plain files of names and forms that such an export has; nothing that another program would run as code
when it loads the folder. What the numbers and texts in them are is not judged here.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from engine.export.cleaning import CONTENTS, REMOTE_CODE
from engine.export.copying import is_exported
from engine.run.sizes import size_text
from profiles.bounded_files import parse_json
from profiles.problem import Problem, printable
from profiles.shapes.safetensors_header import read_header

# Far more than the shards of the largest models.
_MOST_FILES = 2_000
# Of a model that makes vectors.
_FOLDERS = {"1_Pooling": "config.json"}
# Settings take kilobytes, the index of a model's shards some megabytes. Vocabularies are not read here.
_MOST_SETTINGS_BYTES = 16 << 20
_MODULES, _OURS = "modules.json", "sentence_transformers."
_BLOCK_BYTES = 1 << 20
_WAS_REPLACED = "was replaced while it was looked at"
_FIX = (
    "Nothing was written there. The process that exports has been made to do something else: look into where the model "
    "and the adapter come from, and export again."
)

Hashes = dict[str, dict[str, Any]]


def take_over(folder: Path, most_bytes: int, umask: int) -> tuple[Hashes, os.stat_result]:
    """Look at all in `folder`, give it the modes of new files under `umask`, and bring it onto the disk. Returns
    size and SHA-256 of each file by its place there, and which folder it was. Raises Problem for what is no export, or
    more than `most_bytes`, and OSError."""
    try:
        with _opened(folder) as (descriptor, status):
            hashes: Hashes = {}
            for place in list(_files(descriptor)):  # before anything is read
                left = most_bytes - sum(each["bytes"] for each in hashes.values())
                hashes[place] = _take_file(folder, descriptor, place, left, umask)
            for name in ("", *(each for each in _FOLDERS if any(place.startswith(f"{each}/") for place in hashes))):
                below = os.open(name or ".", _FOLDER, dir_fd=descriptor)
                try:
                    os.fchmod(below, 0o777 & ~umask)
                    os.fsync(below)
                finally:
                    os.close(below)
            return hashes, status
    except _Odd as odd:
        raise Problem(printable(folder.name + "/" * bool(odd.place) + odd.place, 300), odd.what, _FIX) from None


class _Odd(Exception):
    """What stands at `place` in the folder ("" for the folder itself) is none of an export, since it `what`."""

    def __init__(self, place: str, what: str):
        super().__init__(place, what)
        self.place, self.what = place, what


_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def _opened(folder: Path) -> Iterator[tuple[int, os.stat_result]]:
    try:
        descriptor = os.open(folder, _FOLDER)
    except FileNotFoundError:
        raise _Odd("", "was not written") from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise _Odd("", "is no folder") from None
        raise
    try:
        status = os.fstat(descriptor)
        _require_ours("", status)
        yield descriptor, status
    finally:
        os.close(descriptor)


def _files(folder: int) -> Iterator[str]:
    """The places of the files in it, all of whose names are an export's. Raises _Odd, OSError."""
    count = 0
    for place, status in _entries(folder, ""):
        if (count := count + 1) > _MOST_FILES:
            raise _Odd("", f"holds more than {_MOST_FILES:,} files")
        if not stat.S_ISDIR(status.st_mode):
            if not is_exported(place):
                raise _Odd(place, "is a file that no export has")
            yield place
            continue
        if place not in _FOLDERS:
            raise _Odd(place, "is a folder that no export has")
        _require_ours(place, status)
        try:
            below = os.open(place, _FOLDER, dir_fd=folder)
        except OSError as error:
            raise _Odd(place, _WAS_REPLACED) from error
        try:
            for name, _ in _entries(below, place):
                if name != _FOLDERS[place]:
                    raise _Odd(f"{place}/{name}", "is a file that no export has")
                yield f"{place}/{name}"
        finally:
            os.close(below)


def _entries(folder: int, place: str) -> Iterator[tuple[str, os.stat_result]]:
    """Names and kinds, of no more than there may be."""
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                yield entry.name, entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                raise _Odd(f"{place}/{entry.name}".lstrip("/"), _WAS_REPLACED) from None


def _take_file(path: Path, folder: int, place: str, most_bytes: int, umask: int) -> dict[str, Any]:
    try:
        # What is no file is not waited for, and a device not opened: it was looked at before.
        _require_file(place, os.stat(place, dir_fd=folder, follow_symlinks=False))
        descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _Odd(place, _WAS_REPLACED) from error
    try:
        status = os.fstat(descriptor)
        _require_file(place, status)
        if status.st_size > most_bytes:
            raise _Odd(place, f"has {size_text(status.st_size)}, which is more than this export can have")
        _require_unwritten(place, descriptor)
        os.fchmod(descriptor, 0o666 & ~umask)
        contents = _hashed(descriptor, status.st_size)
        _require_form(path / place, place, descriptor, status.st_size)
        os.fsync(descriptor)
        now = os.fstat(descriptor)
        if (now.st_size, now.st_mtime_ns, now.st_nlink) != (status.st_size, status.st_mtime_ns, 1):
            raise _Odd(place, "was changed while it was looked at")
    finally:
        os.close(descriptor)
    return contents


def _require_file(place: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        raise _Odd(place, f"is {kinds.get(stat.S_IFMT(status.st_mode), 'a device')}, and no file")
    _require_ours(place, status)
    if status.st_nlink != 1:
        raise _Odd(place, "has another name elsewhere (a hard link)")


def _require_ours(place: str, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise _Odd(place, f"belongs to user {status.st_uid}")
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID) and not stat.S_ISDIR(status.st_mode):
        raise _Odd(place, "gives who runs it another's rights (set-id)")


def _require_unwritten(place: str, descriptor: int) -> None:
    """Raises _Odd where a process has the file open for writing: the kernel grants nobody a lease of it then. Where it
    knows no leases (a network disk) that is not told."""
    try:
        # Its own signal for who wants the file meanwhile would end us.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise _Odd(place, "is still being written by a process that the export left behind") from None
        return
    with suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _hashed(descriptor: int, size: int) -> dict[str, Any]:
    digest, done = hashlib.sha256(), 0
    while done < size and (block := os.pread(descriptor, min(_BLOCK_BYTES, size - done), done)):
        digest.update(block)
        done += len(block)
    return {"bytes": done, "sha256": digest.hexdigest()}


def _require_form(path: Path, place: str, descriptor: int, size: int) -> None:
    """Raises _Odd for settings that would have code run, and for weights that are none."""
    name = path.name
    try:
        if path.suffix == ".safetensors":
            # By the very file that was hashed.
            read_header(Path(f"/proc/self/fd/{descriptor}"))
        elif path.suffix == ".json" and name not in CONTENTS:
            if size > _MOST_SETTINGS_BYTES:
                raise _Odd(place, f"has {size_text(size)}, which settings have not")
            text = os.pread(descriptor, size, 0)
            if name == _MODULES:
                _require_own_modules(place, json.loads(text))
            elif REMOTE_CODE in parse_json(text, path, "it", ""):
                raise _Odd(place, f"names code to be run ({REMOTE_CODE})")
    except Problem as problem:
        raise _Odd(place, problem.what) from None
    except (ValueError, RecursionError):
        raise _Odd(place, "is not JSON") from None


def _require_own_modules(place: str, modules: Any) -> None:
    if not isinstance(modules, list):
        raise _Odd(place, "is no list of modules")
    for each in modules:
        kind = each.get("type") if isinstance(each, dict) else None
        if not isinstance(kind, str) or not kind.startswith(_OURS):
            raise _Odd(place, f"names code to be run ({printable(kind, 60)})")
