"""Sentences for records that are no rows, common to several formats. Each completes "line 7 ..."."""

from __future__ import annotations

from engine.data.files import limits
from profiles.problem import printable


def too_long(size_bytes: int) -> str:
    return f"has {size_bytes:,} bytes; a row may have {limits.MAX_ROW_BYTES:,}"


def binary_byte(record: bytes) -> str:
    return f"has the binary byte 0x00 at byte {record.index(0) + 1:,}"


def not_encoded(error: UnicodeDecodeError, encoding: str, is_unfinished: bool = False) -> str:
    """For bytes that are no text. `error` comes from decoding UTF-8; `encoding` is what the file is written in."""
    if encoding != "utf-8":
        return f"holds bytes that {encoding} does not have; check the source's encoding"
    record: bytes = error.object
    if is_unfinished and error.end == len(record) and error.reason == "unexpected end of data":
        return "is cut off; the file may still be copying"
    byte = record[error.start]
    guess = bytes([byte]).decode("cp1252", errors="replace")
    meant = f" (in Windows-1252 it would be {guess})" if guess.isprintable() and guess != "\ufffd" else ""
    return (
        f"is not UTF-8: byte 0x{byte:02x} at byte {error.start + 1:,}{meant}; save the file as UTF-8, "
        "or name its encoding"
    )


def excerpt_of(record: bytes) -> str:
    return printable(record[: limits.EXCERPT_BYTES].decode(errors="replace"))
