"""Finding where JSON values begin and end without reading them, in a text of any length and however broken."""

from __future__ import annotations

import re

from engine.data.files import limits
from engine.data.files.text_stream import Readable

# Everything up to the next bracket, strings passed over whole, so that the loop below turns once a bracket.
_TO_BRACKET = re.compile(rb'[^"{}\[\]]*+(?:"(?:[^"\\]++|\\.)*+"[^"{}\[\]]*+)*+', re.DOTALL)
_STRING_REST = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_BARE = re.compile(rb'[^\s,:"{}\[\]]*+')
_SPACE = re.compile(rb"\s*+")
_QUOTE = b'"'


class Scanner:
    """A place in a text. What lies more than a row behind it is forgotten."""

    def __init__(self, stream: Readable, offset: int = 0, line: int = 1):
        self._stream = stream
        self._data = b""
        self._at = 0
        self._mark = 0
        """What lies before may be forgotten."""
        self._base = offset
        """Where in the text the data begin, in bytes."""
        self._line = line
        self._counted = 0
        """The line of a place in the data, and that place."""
        self._head = b""
        """The beginning of the value that is passed over, once it is too long to be kept."""

    @property
    def offset(self) -> int:
        """Of the place, in bytes of the text."""
        return self._base + self._at

    @property
    def line(self) -> int:
        """Of the place, from 1."""
        self._line += self._data.count(b"\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def peek(self) -> bytes:
        """The next byte that is no white space, going there; b"" at the end."""
        while True:
            self._at = self._mark = self._end_of(_SPACE)
            if self._at < len(self._data):
                return self._data[self._at : self._at + 1]
            if not self._more():
                return b""

    def take(self) -> None:
        """Pass over one byte."""
        self._at += 1

    def value(self) -> tuple[bytes, int, bool]:
        """Pass over the value at this place: its bytes (of one that is too long, the first), how many it has, and
        whether it is complete. What is no value is passed over as far as the next comma, bracket or space."""
        self._mark, self._head = self._at, b""
        begin = self.offset
        first = self._data[self._at : self._at + 1]
        if first == _QUOTE:
            is_complete = self._pass_string()
        elif first in (b"{", b"["):
            is_complete = self._pass_brackets()
        else:
            is_complete = self._pass_bare()
        size = self.offset - begin
        value = self._head or self._data[self._mark : self._at]
        return value if size <= limits.MAX_ROW_BYTES else value[: limits.EXCERPT_BYTES], size, is_complete

    def _pass_brackets(self) -> bool:
        depth = 0
        while True:
            self._at = self._end_of(_TO_BRACKET)
            if self._at == len(self._data):
                if not self._more():
                    return False
                continue
            byte = self._data[self._at : self._at + 1]
            if byte == _QUOTE:
                if not self._pass_string():
                    return False
                continue
            depth += 1 if byte in b"{[" else -1
            self._at += 1
            if not depth:
                return True

    def _pass_string(self) -> bool:
        self._at += 1
        while True:
            self._at = self._end_of(_STRING_REST)
            if self._data[self._at : self._at + 1] == _QUOTE:
                self._at += 1
                return True
            # Here stands the end, or a backslash whose other half is not there yet.
            if not self._more():
                self._at = len(self._data)
                return False

    def _pass_bare(self) -> bool:
        start = self.offset
        while (end := self._end_of(_BARE)) == len(self._data):
            self._at = end
            if not self._more():
                return True
        self._at = end
        if self.offset == start:
            self._at += 1  # a bracket that closes nothing, or a colon
        return True

    def _end_of(self, pattern: re.Pattern[bytes]) -> int:
        match = pattern.match(self._data, self._at)
        assert match is not None, "each of the patterns also matches nothing"
        return match.end()

    def _more(self) -> bool:
        block = self._stream.read(limits.BLOCK_BYTES)
        if not block:
            return False
        kept = min(self._mark, self._at)
        if self._at - kept > limits.MAX_ROW_BYTES or self._head:
            self._head = self._head or self._data[kept : kept + limits.EXCERPT_BYTES]
            kept = self._at
        self._line += self._data.count(b"\n", self._counted, kept) if self._counted < kept else 0
        self._counted = max(0, self._counted - kept)
        self._data = self._data[kept:] + block
        self._base += kept
        self._at -= kept
        self._mark = 0
        return True
