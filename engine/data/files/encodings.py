"""What a text is encoded in: said by a byte-order mark or by a person, valid UTF-8, or else guessed and told."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from engine.data.files.stored import StoredFile
from engine.data.rows import shown
from profiles.problem import Problem, printable

# Longer marks first, since UTF-32's begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MARK_BYTES = 3
"""Of a byte-order mark once it is UTF-8."""

# What files of the last thirty years are written in where they are not Unicode. A guess among all that Python knows
# is more often wrong: many of them give some text for any bytes.
_LEGACY = (
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r",
    "gb18030", "big5", "cp932", "euc_jp", "cp949",
)  # fmt: skip
# With fewer broken places a few bad lines in a UTF-8 file are as likely, and those are set aside with a guess each.
_LEAST_BROKEN = 3
_GUESSED_FROM_BYTES = 2**15
# They decode to what a program would run, or are no encodings of text at all.
_REFUSED = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "utf_7", "mbcs", "oem"})


@dataclass(frozen=True, slots=True)
class Encoding:
    name: str
    skipped_bytes: int = 0
    """Of a byte-order mark, in UTF-8."""
    note: str = ""


def encoding_of(stored: StoredFile, head: bytes, said: str) -> Encoding:
    """Of a text that begins with `head`; `said` is what the person says or "auto". Raises Problem."""
    mark = next(((mark, name) for mark, name in _MARKS if head.startswith(mark)), None)
    if said != "auto":
        return _said(stored, said, mark)
    if mark is not None and mark[1] == "utf-8":
        return Encoding("utf-8", _MARK_BYTES, "the file begins with a UTF-8 byte-order mark, which is passed over")
    if mark is not None:
        return Encoding(mark[1], _MARK_BYTES, f"the file is {mark[1].upper()} text by its byte-order mark")
    if wide := _wide(head):
        return Encoding(wide, 0, f"the file has no byte-order mark and looks like {wide.upper()} text")
    text = head.decode(errors="replace")
    broken = text.count("\ufffd") - head.count("\ufffd".encode())
    whole = sum(character > "\x7f" for character in text) - text.count("\ufffd")
    if broken >= _LEAST_BROKEN and whole < broken / 2 and (guess := _guess(head)):
        return Encoding(guess, 0, f"the file is not UTF-8; read as {guess}, which is a guess: check the samples")
    return Encoding("utf-8")


def _said(stored: StoredFile, said: str, mark: tuple[bytes, str] | None) -> Encoding:
    where = f"the encoding of {shown(stored.path)}"
    try:
        found = codecs.lookup(said)
        codecs.getincrementaldecoder(said)
    except (LookupError, ValueError):
        raise Problem(where, f"is {printable(said)}, which is none that Python knows", "Try utf-8 or cp1252.") from None
    if not getattr(found, "_is_text_encoding", True) or found.name.replace("-", "_") in _REFUSED:
        raise Problem(where, f"is {printable(said)}, which is no encoding of text", "Try utf-8 or cp1252.")
    name = {"utf-16": "utf-16-le", "utf-32": "utf-32-le", "utf-8-sig": "utf-8"}.get(found.name, found.name)
    if mark is None or not name.startswith("utf"):
        return Encoding(name)
    if mark[1].startswith(found.name.removesuffix("-sig")):
        return Encoding(mark[1], _MARK_BYTES)
    return Encoding(name)


def _wide(head: bytes) -> str:
    """UTF-16 or UTF-32 by where the zeros are: text has them in the same half of every character."""
    sample = head[: len(head) // 4 * 4]
    if len(sample) < 8:
        return ""
    zeros = [sample[start::4].count(0) / (len(sample) // 4) for start in range(4)]
    if zeros[2] == zeros[3] == 1.0 and zeros[0] < 0.1:
        return "utf-32-le"
    if zeros[0] == zeros[1] == 1.0 and zeros[3] < 0.1:
        return "utf-32-be"
    first, second = zeros[0] + zeros[2], zeros[1] + zeros[3]
    # Ideographs have no zeros, but the brackets, quotes and line ends between them do.
    if max(first, second) > 0.1 and min(first, second) < max(first, second) / 20:
        name = "utf-16-le" if second > first else "utf-16-be"
        return name if _decodes(sample, name) else ""
    return ""


def _decodes(sample: bytes, name: str) -> bool:
    try:
        codecs.getincrementaldecoder(name)().decode(sample)
    except UnicodeDecodeError:
        return False
    return True


def _guess(head: bytes) -> str:
    import charset_normalizer  # here, since it takes 50 ms to load and few files need it

    telling = bytearray()
    for line in head.split(b"\n"):
        if not line.isascii():
            telling += line[:2048] + b"\n"
        if len(telling) > _GUESSED_FROM_BYTES:
            break
    found = charset_normalizer.from_bytes(bytes(telling), cp_isolation=list(_LEGACY))
    best = found.best()
    if best is None:
        return ""
    # Of several that fit as well the most common one.
    as_good = [each for each in found if (each.chaos, each.coherence) == (best.chaos, best.coherence)]
    names = {name for each in as_good for name in each.could_be_from_charset}
    return next((name for name in _LEGACY if name in names), str(best.encoding))
