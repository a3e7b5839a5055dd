"""How single tokens read, whatever the tokenizer writes them as."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from tokenizers import Tokenizer

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_NOT_A_CHARACTER = "\ufffd"


class PieceText:
    """Reads tokens one at a time; what a token reads as does not depend on its neighbours."""

    def __init__(self, backend: Tokenizer):
        self._backend = backend
        self._added = {token: added.content for token, added in backend.get_added_tokens_decoder().items()}
        # Decoders drop a space at the beginning of a text, so each token is read behind another one.
        anchor = backend.encode("a", add_special_tokens=False).ids
        self._anchor = anchor
        self._anchor_text = backend.decode(anchor, skip_special_tokens=False)
        self._known: dict[int, str] = {}

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return [self._piece(int(token)) for token in ids]

    def _piece(self, token: int) -> str:
        if (text := self._known.get(token)) is None:
            text = self._known[token] = self._read(token)
        return text

    def _read(self, token: int) -> str:
        raw = self._backend.id_to_token(token)
        if raw is None:
            return f"<no token {token}>"
        if byte := _BYTE.fullmatch(raw):
            return _bytes_text(bytes([int(byte[1], 16)]))
        if token in self._added:
            return self._added[token]
        text = self._backend.decode([*self._anchor, token], skip_special_tokens=False)
        text = text.removeprefix(self._anchor_text) if text.startswith(self._anchor_text) else raw
        if _NOT_A_CHARACTER not in text:
            return text
        letters = byte_of_letter()
        if all(letter in letters for letter in raw):
            return _bytes_text(bytes(letters[letter] for letter in raw))
        return text


def _bytes_text(data: bytes) -> str:
    """Text, with what is no whole character as \\xE2."""
    text = data.decode("utf-8", "backslashreplace")
    return re.sub(r"\\x([0-9a-f]{2})", lambda match: "\\x" + match[1].upper(), text) if "\\x" in text else text


@cache
def byte_of_letter() -> dict[str, int]:
    """The byte that each letter of a byte-level tokenizer's alphabet stands for: those that print are themselves, the
    others are counted from U+0100."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printing]
    return {chr(byte): byte for byte in printing} | {chr(0x100 + at): byte for at, byte in enumerate(others)}
