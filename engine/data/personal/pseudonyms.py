"""Replacements that look like what they replace: equal values get equal ones, and no table of them is kept.

Everything is drawn from HMAC-SHA-256 over the kind and the value. Names come from lists, numbers keep their layout
and, where a check digit makes them what they are, get a right one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import string
from collections.abc import Callable, Iterator, Sequence
from functools import cache

from engine.data.personal.accounts import is_card, is_iban
from engine.data.personal.found import MASKS, PersonalType, digits_of
from engine.data.personal.name_lists import given_names, name_lists, surnames

# Candidates drawn until one has right check digits: those of an IBAN are right once in 97 times.
_TRIES = 2_000
_STREETS = (
    "Maple Street",
    "Station Road",
    "Mill Lane",
    "Park Avenue",
    "Church Street",
    "Garden Road",
    "Harbour Street",
    "Linden Street",
    "Orchard Lane",
    "School Road",
    "Bridge Street",
    "Meadow Lane",
)
_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


class Pseudonyms:
    """Under one key."""

    def __init__(self, key: bytes):
        assert key, "a pseudonym without a key could be undone by anybody"
        self._key = key

    def replacement(self, kind: PersonalType, text: str) -> str:
        """What stands for `text` from now on: of the same kind, and the same whenever it is asked for."""
        match kind:
            case "name":
                return self.name(text)
            case "email":
                return self._email(text)
            case "address":
                return self._address(text)
            case "ip":
                draw = self._draw(kind, text.lower())
                return "2001:db8::" + _hex(draw, 4) if ":" in text else f"203.0.113.{next(draw) % 254 + 1}"
            case "iban":
                return self._valid(kind, text, keep=2, is_valid=is_iban)
            case "card":
                return self._valid(kind, text, keep=1, is_valid=is_card)
            case "birth_date":
                return self._date(text)
            case "private_key":
                return MASKS[kind]
            case "phone":
                return self._phone(text)
            case _:
                return self._redrawn(self._draw(kind, _packed(text)), text, keep=0)

    def name(self, text: str) -> str:
        """Word by word, so that "Maria Novak", "Maria" and "Ms Novak" stay one person."""
        return " ".join(word if word in name_lists().particles else self._name_word(word) for word in text.split())

    def _name_word(self, word: str) -> str:
        tail = "," if word.endswith(",") else ""
        if word.endswith("."):
            return string.ascii_uppercase[next(self._draw("initial", word)) % 26] + "."
        word = word.removesuffix(",") or word
        names = (given_names if word in name_lists().given else surnames)(is_cyrillic="а" <= word[-1] <= "я")
        return _one_of(names, self._draw("name", word.casefold())) + tail

    def _email(self, text: str) -> str:
        draw = self._draw("email", text.casefold())
        given = _one_of(given_names(), draw)
        surname = _one_of(surnames(), draw)
        return f"{_ascii(given)}.{_ascii(surname)}{next(draw) % 90 + 10}@example.org"

    def _address(self, text: str) -> str:
        draw = self._draw("address", _packed(text))
        street = _STREETS[next(draw) % len(_STREETS)]
        tail = re.search(r",.*$", text, re.S)
        town = self._redrawn(draw, tail.group(), keep=0, letters=False) if tail else ""
        return f"{_number(draw) % 198 + 1} {street}{_without_names(town)}"

    def _phone(self, text: str) -> str:
        """The country and the layout stay, all but the first two or three digits change."""
        keep = 3 if text.startswith(("+", "00")) else 2
        return self._redrawn(self._draw("phone", digits_of(text)), text, keep)

    def _date(self, text: str) -> str:
        """Another day of the same layout: within the same decade, so that ages stay plausible."""
        draw = self._draw("birth_date", _packed(text))
        day = next(draw) % 28 + 1
        month = next(draw) % 12
        written = re.sub(r"[A-Za-zÀ-ÿ]{3,}", lambda word: _month_or(word.group(), month), text)

        def number(match: re.Match[str]) -> str:
            digits = match.group()
            if len(digits) == 4:
                return digits[:3] + str(next(draw) % 10)
            value = min(day, 12) if not re.search("[A-Za-z]{3}", text) else day
            return str(value).rjust(len(digits), "0")

        return re.sub(r"\d+", number, written)

    def _valid(self, kind: PersonalType, text: str, keep: int, is_valid: Callable[[str], bool]) -> str:
        for attempt in range(_TRIES):
            made = self._redrawn(self._draw(kind, f"{_packed(text)}/{attempt}"), text, keep)
            if is_valid(made):
                return made
        return made

    def _redrawn(self, draw: Iterator[int], text: str, keep: int, letters: bool = True) -> str:
        """`text` with every digit and letter but the first `keep` drawn anew, of the same sort; signs stay."""
        made, kept = [], 0
        for character in text:
            is_digit = "0" <= character <= "9"
            if not is_digit and not (letters and character.isalpha()):
                made.append(character)
            elif kept < keep:
                made.append(character)
                kept += 1
            elif is_digit:
                made.append(string.digits[next(draw) % 10])
            else:
                alphabet = string.ascii_uppercase if character.isupper() else string.ascii_lowercase
                made.append(alphabet[next(draw) % 26])
        return "".join(made)

    def _draw(self, kind: str, value: str) -> Iterator[int]:
        """Numbers from 0 to 255 without end, that only the key tells."""
        block = 0
        while True:
            message = f"{kind}\x00{value}\x00{block}".encode(errors="surrogatepass")
            yield from hmac.new(self._key, message, hashlib.sha256).digest()
            block += 1


def _packed(text: str) -> str:
    """Without the separators that people put or leave out."""
    return re.sub(r"[\W_]+", "", text).casefold()


def _number(draw: Iterator[int]) -> int:
    return next(draw) << 16 | next(draw) << 8 | next(draw)


def _one_of(names: Sequence[str], draw: Iterator[int]) -> str:
    return names[_number(draw) % len(names)]


def _hex(draw: Iterator[int], digits: int) -> str:
    return "".join(f"{next(draw) % 16:x}" for _ in range(digits))


@cache
def _ascii(name: str) -> str:
    import unicodedata

    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub("[^a-z]", "", plain) or "someone"


def _month_or(word: str, month: int) -> str:
    known = next((each for each in _MONTHS if each.lower().startswith(word.lower()[:3])), None)
    return _MONTHS[month] if known else word


def _without_names(town: str) -> str:
    """The town behind a street says who lives there almost as well as the street: only its numbers stay."""
    return re.sub(r"[^\W\d_]{3,}", "Newtown", town, count=1)
