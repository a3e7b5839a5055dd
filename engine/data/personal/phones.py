"""Phone numbers: international ones, the forms in which countries write theirs, and any that a word announces."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from engine.data.personal.found import NOT_PERSONAL, Personal, before, digits_of

_DIGITS = r"\(?\d(?:[ .\-/()\u00a0\u2011]{0,2}\d){6,14}"
_BOUND_BEFORE, _BOUND_AFTER = r"(?<![\w.,/=+$€£-])", r"(?![\w%]|[.,:-]\d)"
_INTERNATIONAL = re.compile(rf"(?:(?<![\w+.])\+|(?<![\w+./=-])00(?=[1-9])){_DIGITS}{_BOUND_AFTER}")
# Country calling codes (ITU E.164): of one, two and three digits.
_CODES = re.compile(
    r"1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]"
    r"|2[1-689]\d|3[578]\d|42[013]|5[09]\d|6[789]\d|8[058]\d|9[679]\d"
)
# How countries write their own numbers, in forms that little else has.
_NATIONAL = re.compile(
    rf"{_BOUND_BEFORE}(?:"
    r"(?:1[ .-]?)?\([2-9]\d{2}\)[ .-]?\d{3}[ .-]?\d{4}"  # North America: (555) 123-4567
    r"|(?:1[.-])?[2-9]\d{2}-\d{3}-\d{4}|(?:1\.)?[2-9]\d{2}\.[2-9]\d{2}\.\d{4}|(?:1 )?[2-9]\d{2} [2-9]\d{2}[ -]\d{4}"
    r"|0[1-9](?:[ .-]\d{2}){4}"  # France: 06 12 34 56 78
    r"|\(0\d{2,4}\) ?\d{3,4} ?\d{3,4}|07\d{3}[ -]?\d{3}[ -]?\d{3}|0[12]\d{1,3} \d{3,4} \d{3,4}"  # United Kingdom
    r"|0\d{2,4} ?/ ?\d{4,9}(?:-\d{1,4})?"  # Germany: 030/1234567
    r"|04\d{2} \d{3} \d{3}|\(0[2378]\) \d{4} \d{4}"  # Australia
    r"|0\d{1,3}-\d{2,4}-\d{4}"  # Japan, Korea
    r"|1[3-9]\d-\d{4}-\d{4}"  # China
    r"|\(\d{2}\) ?9?\d{4}-\d{4}"  # Brazil
    r"|06[ -]\d{8}|0\d{2} \d{3} \d{2} \d{2}|3\d{2} \d{3} \d{4}|[67]\d{2} \d{3} \d{3}"  # Netherlands, Switzerland ...
    rf"){_BOUND_AFTER}"
)
_NUMBER_OF = r"(?:number|nummer|no|nr|num[ée]ro|n[úu]mero|is|est|es|ist|at|on|under|unter|me|us|him|her|them|back)"
_ANNOUNCED = re.compile(
    r"(?i)(?:\b(?:(?:tele)?phone|tel|mobile|cell|cellphone|fax|whatsapp|sms|telefon|telefonnummer|handy|handynummer|mobil|portable"
    r"|t[ée]l[ée]phone|tel[ée]fono|m[óo]vil|cellulare|telefone|celular|telefoon|gsm|ph|call|ring|dial|reach|text|anrufen"
    rf"|тел|телефон)\b|电话|電話|手机|전화)(?:[\s.:#=-]{{0,3}}\b{_NUMBER_OF}\b){{0,3}}[\s.:#=-]{{0,3}}({_DIGITS}){_BOUND_AFTER}"
)
_DATE = re.compile(r"(?:19|20)\d{2}[-/. ](?:0?[1-9]|1[0-2])[-/. ]|\d{1,2}[-/.]\d{1,2}[-/.](?:19|20)\d{2}")
_YEARS = re.compile(r"(?:1[5-9]|20)\d{2} ?[-/] ?(?:1[5-9]|20)\d{2}$")


def find_phones(text: str, begin: int = 0, end: int = sys.maxsize) -> Iterator[Personal]:
    for match in _INTERNATIONAL.finditer(text, begin, end):
        found = _balanced(match.group())
        digits = digits_of(found)
        if found.startswith("00"):
            is_phone = len(digits) >= 10 and digits != found and _CODES.match(digits[2:]) is not None
        else:
            is_phone = 8 <= len(digits) <= 15 and _CODES.match(digits) is not None
        if is_phone:
            yield Personal(match.start(), match.start() + len(found), "phone")
    for pattern, group in ((_ANNOUNCED, 1), (_NATIONAL, 0)):
        for match in pattern.finditer(text, begin, end):
            found = _balanced(match[group])
            start = match.start(group)
            if _is_number(found) and not NOT_PERSONAL.search(before(text, start)):
                yield Personal(start, start + len(found), "phone")


def _is_number(found: str) -> bool:
    digits = digits_of(found)
    return 7 <= len(digits) <= 15 and len(set(digits)) > 2 and not _DATE.match(found) and not _YEARS.match(found)


def _balanced(found: str) -> str:
    """`found` up to a bracket that is closed but was not opened within it."""
    depth = 0
    for index, character in enumerate(found):
        depth += (character == "(") - (character == ")")
        if depth < 0:
            return found[:index].rstrip()
    return found
