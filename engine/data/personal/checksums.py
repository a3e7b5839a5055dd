"""The check digits of cards, accounts and national ids. All take digits without separators."""

from __future__ import annotations

from collections.abc import Sequence

_VERHOEFF_TURNS = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def luhn(digits: str) -> bool:
    """Cards, and the ids of Sweden, Canada and South Africa."""
    total = 0
    for index, character in enumerate(reversed(digits)):
        value = ord(character) - 48
        if index % 2:
            value = value * 2 - 9 if value > 4 else value * 2
        total += value
    return total % 10 == 0


def mod97(text: str) -> bool:
    """IBANs: the first four characters last, letters as numbers from 10."""
    moved = text[4:] + text[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def weighted(digits: str, weights: Sequence[int]) -> int:
    """The sum of the digits, each times its weight."""
    return sum((ord(digit) - 48) * weight for digit, weight in zip(digits, weights, strict=False))


def mod11_10(digits: str) -> bool:
    """ISO 7064 MOD 11,10: German tax ids, Croatian OIB."""
    product = 10
    for character in digits[:-1]:
        total = (ord(character) - 48 + product) % 10 or 10
        product = total * 2 % 11
    return (11 - product) % 10 == ord(digits[-1]) - 48


def verhoeff(digits: str) -> bool:
    """Indian Aadhaar numbers."""
    check = 0
    for index, character in enumerate(reversed(digits)):
        value = ord(character) - 48
        for _ in range(index % 8):
            value = _VERHOEFF_TURNS[value]
        check = _dihedral(check, value)
    return check == 0


def _dihedral(one: int, other: int) -> int:
    """One times the other in the symmetries of a pentagon: 0 to 4 turn it, 5 to 9 mirror it too."""
    if one < 5:
        return (one + other) % 5 if other < 5 else 5 + (one + other) % 5
    return 5 + (one - other) % 5 if other < 5 else (one - other) % 5
