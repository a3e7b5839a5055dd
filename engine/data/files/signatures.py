"""Files that hold no rows, known by how they begin, each with what to do about it."""

from __future__ import annotations

from pathlib import Path

from engine.data.rows import shown
from profiles.problem import Problem

_UNPACK = "Unpack it and give what is inside."
_CONVERT = "Convert it to JSONL: one JSON object per line, in UTF-8."
_REDO = "Download or export the file again."

# What a file starts with, in lower case, what it therefore is, and what to do about it.
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"pk\x03\x04", "is a zip archive (or an Office document)", _UNPACK),
    (b"pk\x05\x06", "is an empty zip archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive", _UNPACK),
    (b"rar!\x1a\x07", "is a RAR archive", _UNPACK),
    (b"\x04\x22\x4d\x18", "is lz4-compressed", _UNPACK),
    (b"fea1", "is a Feather file of version 1", "Write it again as Feather version 2 or Parquet."),
    (b"sqlite format 3", "is an SQLite database", _CONVERT),
    (b"%pdf", "is a PDF", "Extract its text first."),
    (b"\xd0\xcf\x11\xe0", "is an old Office document", _CONVERT),
    (b"\x89png", "is an image", "Give a file of text or of rows."),
    (b"\xff\xd8\xff", "is an image", "Give a file of text or of rows."),
    (b"gif8", "is an image", "Give a file of text or of rows."),
    (b"\x7felf", "is a program", "Give a file of text or of rows."),
    (b"\x80\x04", "is a Python pickle, which can run code and is never opened", _CONVERT),
    (b"\x80\x05", "is a Python pickle, which can run code and is never opened", _CONVERT),
    (b"\x93numpy", "is a NumPy array", _CONVERT),
    (b"gguf", "is a GGUF model", "Give a file of text or of rows."),
    (b"obj\x01", "is an Avro file", _CONVERT),
    (b"orc", "is an ORC file", "Convert it to Parquet."),
    (b"version https://git-lfs", "is a Git LFS pointer, not the data itself", "Fetch the real file: `git lfs pull`."),
)
_MARKUP = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<body")


def refuse_other_kinds(path: Path, head: bytes, is_packed: bool) -> None:
    """Raise Problem when a file's first bytes show that it holds no rows. `is_packed`: they were unpacked."""
    inside = "holds packed data that " if is_packed else ""
    lowered = head[:64].lower()
    for signature, what, fix in _SIGNATURES:
        if lowered.startswith(signature) and not (signature == b"orc" and not head.startswith(b"ORC\n")):
            raise Problem(shown(path), inside + what, fix)
    if head[257:262] == b"ustar":
        raise Problem(shown(path), f"{inside}is a tar archive", _UNPACK)
    if lowered.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(_MARKUP):
        raise Problem(shown(path), f"{inside}is a web page or XML, perhaps an error page saved as data", _REDO)
