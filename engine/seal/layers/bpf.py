"""An assembler for the kernel's classic filter programs: jumps go to labels, forward only, as the kernel wants it."""

from __future__ import annotations

import struct

_LOAD_WORD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
LONGEST_JUMP = 255
"""Instructions that a conditional jump can pass over: its offsets are bytes."""


class Program:
    """Instructions in the order in which they are said. A label that is not given stands for the next instruction."""

    def __init__(self) -> None:
        self._said: list[tuple[int, int, str, str]] = []
        self._labels: dict[str, int] = {}

    def load(self, offset: int) -> None:
        """The word at `offset` bytes of what is filtered becomes the one that is compared."""
        self._said.append((_LOAD_WORD, offset, "", ""))

    def keep_bits(self, mask: int) -> None:
        """Of what was loaded, only the bits of `mask` are compared from here on."""
        self._said.append((_AND, mask, "", ""))

    def equal(self, value: int, then: str = "", otherwise: str = "") -> None:
        self._said.append((_JUMP_EQUAL, value, then, otherwise))

    def at_least(self, value: int, then: str = "", otherwise: str = "") -> None:
        self._said.append((_JUMP_AT_LEAST, value, then, otherwise))

    def any_bit(self, mask: int, then: str = "", otherwise: str = "") -> None:
        self._said.append((_JUMP_ANY_BIT, mask, then, otherwise))

    def answer(self, value: int) -> None:
        self._said.append((_RETURN, value, "", ""))

    def label(self, name: str) -> None:
        assert name not in self._labels, name
        self._labels[name] = len(self._said)

    def __len__(self) -> int:
        return len(self._said)

    def assembled(self) -> bytes:
        """The program as struct sock_filter[]."""
        return b"".join(
            struct.pack("HBBI", code, self._distance(at, then), self._distance(at, otherwise), value)
            for at, (code, value, then, otherwise) in enumerate(self._said)
        )

    def _distance(self, at: int, label: str) -> int:
        distance = self._labels[label] - at - 1 if label else 0
        assert 0 <= distance <= LONGEST_JUMP, (label, distance)
        return distance
