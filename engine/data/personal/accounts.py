"""Cards, IBANs and bank accounts."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache

from engine.data.personal.checksums import luhn, mod97, weighted
from engine.data.personal.found import NOT_PERSONAL, Personal, before, digits_of
from engine.data.personal.name_lists import listed

_IBAN = re.compile(r"(?<![A-Za-z0-9])([A-Z]{2}\d{2})([ -]?[A-Z0-9]{4}(?:[ -]?[A-Z0-9]{1,4}){2,7})")
_CARD = re.compile(r"(?<![\w.+/=-])[2-6]\d{3}(?:[ -]?\d{4}){2}[ -]?\d{1,4}(?:\d{0,3})(?![\w=]|[.,-]\d)")
_AMEX = re.compile(r"(?<![\w.+/=-])3[47]\d{2}[ -]?\d{6}[ -]?\d{5}(?![\w=]|[.,-]\d)")
_CARD_STARTS = re.compile(
    r"4|5[1-5]|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)|6(?:011|4[4-9]|5)|35(?:2[89]|[3-8]\d)|3[0689]|62"
)
_CARD_WORDS = re.compile(r"card|visa|master|amex|karte|carte|tarjeta|carta|cart[ãa]o|cc\b|kaart|debit|credit|pay")
_ACCOUNT = re.compile(
    r"(?i)\b(?:(?:bank\s*)?(?:account|acct|a/c)(?:\s*(?:number|no\.?|nr\.?|num|#))?|konto(?:nummer|nr\.?)"
    r"|n[uú]mero de cuenta|num[ée]ro de compte|numero di conto|rekeningnummer)\s*(?:is|:|=|#|ist|es|est)?\s*"
    r"(\d[\d -]{5,18}\d)(?![\w.]\d|\w)"
)
_SORT_CODE = re.compile(r"(?i)\bsort\s*code\s*(?:is|:)?\s*(\d{2}-\d{2}-\d{2}|\d{6})\b")
_ROUTING = re.compile(r"(?i)\b(?:routing|aba|rtn)\s*(?:number|no\.?|#)?\s*(?:is|:|#)?\s*(\d{9})\b")


@cache
def iban_lengths() -> dict[str, int]:
    """Letters and digits of an IBAN, by country (SWIFT's registry)."""
    return {entry[:2]: int(entry[3:]) for entry in listed("iban_lengths")}


def find_accounts(text: str, begin: int = 0, end: int = sys.maxsize) -> Iterator[Personal]:
    for match in _IBAN.finditer(text, begin, end):
        if iban_end := _iban_end(text, match):
            yield Personal(match.start(), iban_end, "iban")
    for pattern in (_CARD, _AMEX):
        for match in pattern.finditer(text, begin, end):
            if is_card(match.group()) and not _is_other_number(text, match):
                yield Personal(match.start(), match.end(), "card")
    for pattern in (_ACCOUNT, _SORT_CODE):
        for match in pattern.finditer(text, begin, end):
            yield Personal(match.start(1), match.end(1), "account")
    for match in _ROUTING.finditer(text, begin, end):
        if weighted(match[1], (3, 7, 1) * 3) % 10 == 0:
            yield Personal(match.start(1), match.end(1), "account")


def is_card(text: str) -> bool:
    """Whether the digits of `text` are a card's: its issuer's first digits, its length and its check digit."""
    digits = digits_of(text)
    lengths = (15,) if digits[:2] in ("34", "37") else (13, 16, 19) if digits.startswith("4") else (16,)
    if len(digits) not in lengths or len(set(digits)) < 2:
        return False
    issued = digits[:2] in ("34", "37") or _CARD_STARTS.match(digits) is not None
    return issued and luhn(digits)


def is_iban(text: str) -> bool:
    """Whether `text`, without its separators, is an IBAN of its country's length with right check digits."""
    packed = text.replace(" ", "").replace("-", "")
    return len(packed) == iban_lengths().get(packed[:2]) and mod97(packed)


def _iban_end(text: str, match: re.Match[str]) -> int | None:
    """Where the IBAN ends that begins at the match, which may have run on into the next word."""
    length = iban_lengths().get(match[1][:2])
    if length is None:
        return None
    taken, place = 0, match.start()
    while place < match.end() and taken < length:
        taken += text[place] not in " -"
        place += 1
    inside = text[match.start() : place]
    follows = text[place : place + 1]
    return place if taken == length and not follows.isalnum() and is_iban(inside) else None


def _is_other_number(text: str, match: re.Match[str]) -> bool:
    """An order's number passes Luhn once in ten times: unless a card is spoken of, digits in one piece must not follow
    the name of another number."""
    context = before(text, match.start())
    return not _CARD_WORDS.search(context) and NOT_PERSONAL.search(context) is not None
