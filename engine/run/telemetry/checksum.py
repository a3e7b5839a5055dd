"""The checksum that ends every line of a journal, so that what was torn or changed on the disk is noticed.

A line ends with `,"crc":"%08x"}`: the CRC-32 of all of its bytes before that. It stays one JSON object.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from operator import itemgetter

_MARK = b',"crc":"'
_BYTES = len(_MARK) + 10
_END = re.compile(rb',"crc":"[0-9a-f]{8}"\}')
_START = b'{"v":'
# A line that was torn or changed can have as many beginnings as it has bytes; real ones have one or two.
_MOST_PARTS = 16
_before_end = itemgetter(slice(None, -_BYTES))
_end = itemgetter(slice(-_BYTES, None))


def with_checksum(line: bytes) -> bytes:
    """`line`, a JSON object with at least one field and with its newline, with the checksum as its last field."""
    body = line[:-2]
    return b'%s%s%08x"}\n' % (body, _MARK, zlib.crc32(body))


def has_checksum(line: bytes) -> bool:
    """Whether `line`, without its newline, ends with a checksum, be it right or wrong."""
    return line[-_BYTES : 8 - _BYTES] == _MARK and line.endswith(b'"}')


def checksum_holds(line: bytes) -> bool:
    """Whether `line`, without its newline, ends with the right checksum."""
    return line[-_BYTES:] == b'%s%08x"}' % (_MARK, zlib.crc32(line[:-_BYTES]))


def checksums_hold(lines: Sequence[bytes]) -> bool:
    """As `checksum_holds`, for all of `lines` at once: several times as fast as one by one."""
    sums = list(map(zlib.crc32, map(_before_end, lines)))
    text = struct.pack(f">{len(sums)}I", *sums).hex("\n", 4).encode()
    return b"".join(map(_end, lines)) == _MARK + text.replace(b"\n", b'"}' + _MARK) + b'"}' if lines else True


def parts_that_hold(line: bytes) -> list[bytes]:
    """The whole lines within a damaged one, as where a newline was changed or never reached the disk."""
    found = []
    start = line.find(_START)
    for _ in range(_MOST_PARTS):
        if start < 0:
            break
        end = _END.search(line, start)
        if end is None:
            break
        part = line[start : end.end()]
        if checksum_holds(part):
            found.append(part)
            start = line.find(_START, end.end())
        else:
            start = line.find(_START, start + 1)
    return found
