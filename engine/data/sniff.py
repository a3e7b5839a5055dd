"""Is this a file of JSON lines at all? Faults of a whole file, told before its rows are read."""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import BinaryIO

from engine.data.rows import shown
from profiles.problem import Problem, printable

HEAD_BYTES = 4096
UTF8_BOM = b"\xef\xbb\xbf"

_UNPACK = "Unpack it and give the JSONL file inside."
_CONVERT = "Convert it to JSONL: one JSON object per line, in UTF-8."
_REDO = "Download or export the file again."
_LFS_FIX = "Fetch the real file with `git lfs pull`."
_UTF16_FIX = "Save it as UTF-8, for example: iconv -f UTF-16 -t UTF-8 FILE > NEW."

# What a file starts with, in lower case, what it therefore is, and what to do about it.
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "is gzip-compressed", _UNPACK),
    (b"pk\x03\x04", "is a zip archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "is zstd-compressed", _UNPACK),
    (b"bzh", "is bzip2-compressed", _UNPACK),
    (b"\xfd7zxz\x00", "is xz-compressed", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive", _UNPACK),
    (b"par1", "is a Parquet file", _CONVERT),
    (b"arrow1", "is an Arrow file", _CONVERT),
    (b"\xff\xff\xff\xff", "looks like an Arrow stream", _CONVERT),
    (b"sqlite format 3", "is an SQLite database", _CONVERT),
    (b"%pdf", "is a PDF", _CONVERT),
    (b"\x89png", "is an image", _CONVERT),
    (b"\xff\xfe", "is UTF-16 text", _UTF16_FIX),
    (b"\xfe\xff", "is UTF-16 text", _UTF16_FIX),
    (b"version https://git-lfs", "is a Git LFS pointer, not the data itself", _LFS_FIX),
)
_MARKUP = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<body")
_OPEN_FAULTS = {
    errno.ENOENT: ("there is no such file", "Check the path."),
    errno.ENOTDIR: ("part of the path is a file, not a folder", "Check the path."),
    errno.EACCES: ("may not be read by you", "Ask its owner, or change its permissions (chmod u+r)."),
    errno.EPERM: ("may not be read by you", "Ask its owner, or change its permissions (chmod u+r)."),
    errno.ELOOP: ("is a link that leads back to itself", "Give the real file."),
    errno.ENAMETOOLONG: ("is longer than a path may be", "Check the path."),
    errno.ESTALE: ("lies on a network disk that has gone away", "Mount the disk again."),
}


def open_regular(path: Path) -> BinaryIO:
    """`path` opened for reading bytes. Raises Problem when it is no regular file, or may not be read."""
    where = shown(path)
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind):
            raise Problem(where, f"is {_kind_name(kind)}, not a regular file", "Give a JSONL file.")
        return path.open("rb")
    except ValueError:
        raise Problem(where, "holds a NUL character, which no path can", "Check the path.") from None
    except OSError as error:
        if error.errno == errno.ENOENT and path.is_symlink():
            target = printable(path.readlink())
            raise Problem(where, f"is a link to {target}, which is not there", "Give the real file.") from None
        raise unreadable(where, error) from None


def refuse_other_formats(path: Path, head: bytes, size_bytes: int) -> None:
    """Raise Problem when a file's first bytes (`head`, at most HEAD_BYTES) show it to be no JSON lines."""
    where = shown(path)
    if size_bytes == 0:
        raise Problem(where, "is empty", "Give a file with at least one row.")
    start = head.removeprefix(UTF8_BOM).lstrip()
    lowered = head.lower()
    for signature, what, fix in _SIGNATURES:
        if lowered.startswith(signature):
            raise Problem(where, what, fix)
    if head[257:262] == b"ustar":
        raise Problem(where, "is a tar archive", _UNPACK)
    if start.lower().startswith(_MARKUP):
        raise Problem(where, "is a web page or XML, perhaps an error page saved as data", _REDO)
    if _looks_like_utf16(head):
        raise Problem(where, "looks like UTF-16 text without a byte-order mark", _UTF16_FIX)
    if start.startswith(b"[") and _opens_array(start):
        raise Problem(
            where,
            "is one JSON array; JSONL has one object per line",
            "Convert it, for example: jq -c '.[]' FILE > NEW.jsonl.",
        )
    if start.startswith(b"{") and start[1:].lstrip(b" \t\r").startswith(b"\n"):
        raise Problem(
            where,
            "is JSON spread over several lines; JSONL has one object per line",
            "Convert it, for example: jq -c . FILE > NEW.jsonl.",
        )
    if b"\r" in head.rstrip(b"\r") and b"\n" not in head and b"\r{" in head:
        raise Problem(
            where,
            "ends its lines with CR alone",
            "Convert the line ends, for example: tr '\\r' '\\n' < FILE > NEW.jsonl.",
        )


def unreadable(where: str, error: OSError) -> Problem:
    """The Problem for a file that the system would not open or went on to fail in the middle of."""
    what, fix = _OPEN_FAULTS.get(
        error.errno or 0, (f"cannot be read: {error.strerror or error}", "Check the disk and the path.")
    )
    return Problem(where, what, fix)


def _opens_array(start: bytes) -> bool:
    # `[1, 2]` on a line of its own is a bad row among others; an array of objects, or one left open at
    # the end of the line, is a whole file of another format.
    first_line, newline, _ = start.partition(b"\n")
    inside = start[1:].lstrip()
    return inside.startswith(b"{") or not newline or not first_line.rstrip().endswith(b"]")


def _looks_like_utf16(head: bytes) -> bool:
    sample = head[: len(head) // 2 * 2]
    if len(sample) < 8:
        return False
    zeros = (sample[0::2].count(0), sample[1::2].count(0))
    return max(zeros) > len(sample) * 0.4 and min(zeros) < len(sample) * 0.05


def _kind_name(mode: int) -> str:
    names = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((name for is_kind, name in names if is_kind(mode)), "something unusual")
