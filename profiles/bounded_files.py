"""Reading files that may be anything: never blocks on a pipe, never reads more than a bound, never follows a folder's
links to what was not meant."""

from __future__ import annotations

import io
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from profiles.problem import Problem, printable

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_LFS_SIZE = re.compile(rb"^size (\d{1,20})$", re.MULTILINE)
_HEAD_BYTES = 1024
# The deepest config.json known has 6 levels, the deepest tokenizer.json 8.
_DEPTH_LIMIT = 64


def file_size(path: Path) -> int:
    """Size in bytes of a regular file. Raises Problem for anything else, each in its own words."""
    try:
        status = path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            raise Problem(
                str(path),
                f"is a link to {printable(path.readlink())}, which is not there",
                "Copy the file itself.",
            ) from None
        raise Problem(str(path), "is not there", "Copy the missing file into the folder.") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    if not stat.S_ISREG(status.st_mode):
        raise Problem(str(path), f"is {_kind(status.st_mode)}, not a file", "Put the file itself there.")
    return status.st_size


def open_regular(path: Path) -> io.BufferedReader:
    """A regular file, open for reading; of anything else the opening itself may wait for ever or do something. Raises
    Problem."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise _unreadable(path, error) from None
    if not stat.S_ISREG(mode := os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Problem(str(path), f"is {_kind(mode)}, not a file", "Put the file itself there.")
    return os.fdopen(descriptor, "rb")


def astray(path: Path) -> Path | None:
    """Where a link in a model's folder leads when that is no file a model would have there; None for all others.

    Such a folder may come from anywhere, and what is read from it ends up in prompts and in what is handed over: a
    chat_template.jinja must not be a link to a person's keys. A link may lead to a file of its own name, to one within
    the folder, or, as in Hugging Face's cache, from snapshots/REVISION to blobs.
    """
    if not path.is_symlink():
        return None
    try:
        target, folder = path.resolve(strict=True), path.parent.resolve()
    except (OSError, RuntimeError):  # it leads nowhere, or in a circle: told of when the file is opened
        return None
    meant = [folder]
    if folder.parent.name == "snapshots":
        meant.append(folder.parent.parent / "blobs")
    if target.name == path.name or any(target.is_relative_to(each) for each in meant):
        return None
    return target


def looks_wrong(path: Path, size: int) -> str | None:
    """What a file is instead of data (empty, a Git LFS pointer, a web page); None when it may be data."""
    if size == 0:
        return "is empty (0 bytes)"
    head = read_bytes(path, _HEAD_BYTES)
    if head.startswith(_LFS_POINTER):
        promised = _LFS_SIZE.search(head)
        expected = f"{int(promised[1]):,} bytes expected, " if promised else ""
        return f"is a Git LFS pointer, not the file itself ({expected}{size:,} found); `git lfs pull` fetches it"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "is a web page saved under this name"
    return None


def read_bytes(path: Path, limit: int) -> bytes:
    """At most the first `limit` bytes. Raises Problem."""
    with open_regular(path) as file:
        try:
            # A read asks for memory of its limit first, however small the file; what the kernel makes up tells no size.
            size = os.fstat(file.fileno()).st_size
            return file.read(min(size, limit) if size else limit)
        except OSError as error:
            raise _unreadable(path, error) from None


def read_tail(path: Path, size: int) -> bytes:
    """The last `size` bytes, or all where there are fewer. Raises Problem."""
    with open_regular(path) as file:
        try:
            whole = file.seek(0, os.SEEK_END)
            file.seek(max(0, whole - size))
            return file.read(min(size, whole))
        except OSError as error:
            raise _unreadable(path, error) from None


def read_json(path: Path, limit: int) -> dict[str, Any]:
    """The JSON object in a file of at most `limit` bytes. Raises Problem."""
    size = file_size(path)
    fix = f"Copy {path.name} from the model's source again."
    if wrong := looks_wrong(path, size):
        raise Problem(str(path), wrong, fix)
    if size > limit:
        raise Problem(str(path), f"is {size:,} bytes; at most {limit:,} are expected", fix)
    return parse_json(read_bytes(path, limit), path, "it", fix)


def parse_json(text: bytes, path: Path, what: str, fix: str) -> dict[str, Any]:
    """The JSON object in `text`, which is `what` ("it", "its header") of `path`. Raises Problem."""
    try:
        value = json.loads(text.decode("utf-8-sig"), object_pairs_hook=_without_duplicates, parse_constant=_constant)
        _require_shallow(value)
    except UnicodeDecodeError as error:
        raise Problem(str(path), f"{what} is not UTF-8 text (byte {error.start})", fix) from None
    except json.JSONDecodeError as error:
        raise Problem(
            str(path), f"{what} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}", fix
        ) from None
    except RecursionError:
        raise Problem(str(path), f"{what} is not usable JSON: nested too deeply", fix) from None
    except ValueError as error:  # a key twice, a NaN, or a number of thousands of digits
        raise Problem(str(path), f"{what} is not usable JSON: {error}", fix) from None
    if not isinstance(value, dict):
        raise Problem(str(path), f"{what} is JSON but no object", fix)
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"{printable(name)!r} is there twice")
            seen.add(name)
    return values


def _constant(name: str) -> float:
    """Python reads three words that are no JSON. Configs of some models have infinite limits; NaN means nothing."""
    if name == "NaN":
        raise ValueError("it has a number that is none (NaN)")
    return float(name)


def _require_shallow(value: Any) -> None:
    """Raise RecursionError for what Python read and could not walk through or write again."""
    level = [value]
    for _ in range(_DEPTH_LIMIT):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise RecursionError


def _unreadable(path: Path, error: OSError) -> Problem:
    return Problem(str(path), f"cannot be read: {error.strerror}", "Check the path and its permissions.")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")
