"""National ids, tax and insurance numbers, passports and licences.

A number whose form and check digits hardly anything else has is found wherever it stands. One that chance produces
once in ten or so is found only where its name is near it ("BSN 111222333").
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from engine.data.personal.checksums import luhn, mod11_10, verhoeff, weighted
from engine.data.personal.found import NOT_PERSONAL, Personal, before, digits_of

_CONTEXT_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class _Form:
    """How one country's number looks. `valid` gets it without separators; `named` must stand in front, if given."""

    pattern: re.Pattern[str]
    valid: Callable[[str], bool]
    named: re.Pattern[str] | None = None


def _date(year: str, month: str, day: str) -> bool:
    return year.isdigit() and 1 <= int(month) <= 12 and 1 <= int(day) <= 31


def _us_ssn(text: str) -> bool:
    digits = digits_of(text)
    return digits[:3] not in ("000", "666") and digits[0] != "9" and digits[3:5] != "00" and digits[5:] != "0000"


def _uk_nino(text: str) -> bool:
    return text[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")


def _uk_nhs(text: str) -> bool:
    check = 11 - weighted(text[:9], range(10, 1, -1)) % 11
    return check % 11 == int(text[9])


def _german_tax(text: str) -> bool:
    most = max(text[:10].count(digit) for digit in set(text[:10]))
    return text[0] != "0" and most in (2, 3) and mod11_10(text)


def _french_nir(text: str) -> bool:
    number = text[:13].upper().replace("2A", "19").replace("2B", "18")
    month = int(text[3:5])
    return (1 <= month <= 12 or 20 <= month <= 42) and 97 - int(number) % 97 == int(text[13:])


def _spanish(text: str) -> bool:
    number = text[:-1].upper().replace("X", "0").replace("Y", "1").replace("Z", "2")
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == text[-1].upper()


_ITALIAN_ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)


def _italian(text: str) -> bool:
    total = 0
    for index, character in enumerate(text[:15].upper()):
        value = int(character) if character.isdigit() else ord(character) - 65
        total += value if index % 2 else _ITALIAN_ODD[value]
    return chr(65 + total % 26) == text[15].upper()


def _dutch(text: str) -> bool:
    return weighted(text, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0


def _belgian(text: str) -> bool:
    rest = int(text[9:])
    return _date(text[:2], text[2:4], text[4:6]) and rest in (
        97 - int(text[:9]) % 97,
        97 - int("2" + text[:9]) % 97,
    )


def _swedish(text: str) -> bool:
    digits = digits_of(text)[-10:]
    return _date(digits[:2], digits[2:4], str(int(digits[4:6]) % 60)) and luhn(digits)


def _finnish(text: str) -> bool:
    digits = digits_of(text[:-1])
    return "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(digits) % 31] == text[-1].upper()


def _norwegian(text: str) -> bool:
    first = weighted(text, (3, 7, 6, 1, 8, 9, 4, 5, 2, 1)) % 11
    return first == 0 and weighted(text, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)) % 11 == 0


def _polish(text: str) -> bool:
    month = int(text[2:4]) % 20
    return _date(text[:2], str(month), text[4:6]) and weighted(text, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)) % 10 == 0


def _swiss(text: str) -> bool:
    return weighted(text, (1, 3) * 6 + (1,)) % 10 == 0


def _portuguese(text: str) -> bool:
    check = 11 - weighted(text[:8], range(9, 1, -1)) % 11
    return check % 11 % 10 == int(text[8])


def _turkish(text: str) -> bool:
    odd, even = sum(map(int, text[0:9:2])), sum(map(int, text[1:8:2]))
    return (odd * 7 - even) % 10 == int(text[9]) and sum(map(int, text[:10])) % 10 == int(text[10])


def _brazilian(text: str) -> bool:
    if len(set(text)) == 1:
        return False
    checks = [weighted(text, range(count + 1, 1, -1)) * 10 % 11 % 10 for count in (9, 10)]
    return [int(text[9]), int(text[10])] == checks


def _chinese(text: str) -> bool:
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    is_right = "10X98765432"[weighted(text[:17], weights) % 11] == text[17].upper()
    return is_right and text[6:8] in ("19", "20") and _date(text[6:10], text[10:12], text[12:14])


def _korean(text: str) -> bool:
    check = (11 - weighted(text[:12], (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)) % 11) % 10
    return _date(text[:2], text[2:4], text[4:6]) and check == int(text[12])


def _south_african(text: str) -> bool:
    return _date(text[:2], text[2:4], text[4:6]) and text[10] in "01" and luhn(text)


def _mexican(text: str) -> bool:
    return _date(text[4:6], text[6:8], text[8:10])


def _australian(text: str) -> bool:
    return weighted(text, (1, 4, 3, 7, 5, 8, 6, 9, 10)) % 11 == 0


def _always(text: str) -> bool:
    return True


def _form(pattern: str, valid: Callable[[str], bool], named: str | None = None) -> _Form:
    return _Form(
        re.compile(rf"(?<![\w.,/+=-])(?:{pattern})(?![\w=]|[.,/-]\d)"),
        valid,
        re.compile(rf"\b(?:{named})\b") if named else None,
    )


_FORMS = (
    _form(r"\d{3}-\d{2}-\d{4}", _us_ssn),
    _form(r"\d{9}|\d{3} \d{2} \d{4}", _us_ssn, r"ssn|social security(?: number| no)?"),
    _form(r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z](?: ?\d{2}){3} ?[A-D]", _uk_nino),
    _form(r"\d{3}[ -]?\d{3}[ -]?\d{4}", _uk_nhs, r"nhs"),
    _form(r"\d{2} ?\d{3} ?\d{3} ?\d{3}", _german_tax, r"steuer\S{0,20}|idnr|tax(?: id)?|tin"),
    _form(r"[12] ?\d{2} ?\d{2} ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2}", _french_nir),
    _form(r"[XYZxyz]?-?\d{7,8}-?[A-HJ-NP-TV-Z]", lambda text: len(text) == 9 and _spanish(text)),
    _form(r"(?i:[A-Z]{6}\d{2}[A-EHLMPR-T]\d{2}[A-Z]\d{3}[A-Z])", _italian),
    _form(r"\d{9}|\d{4}\.\d{2}\.\d{3}", _dutch, r"bsn|burgerservicenummer|sofinummer"),
    _form(r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", _belgian),
    _form(r"\d{11}", _belgian, r"rijksregister\S*|nrn|registre national|insz"),
    _form(r"(?:19|20)?\d{6}[-+]\d{4}", _swedish),
    _form(r"\d{6}-?\d{4}", lambda text: _date(text[4:6], text[2:4], text[:2]), r"cpr(?:[- ]?(?:nr|nummer))?"),
    _form(r"\d{6}[-+A-FU-Y]\d{3}[0-9A-FHJ-NPR-Y]", lambda text: len(text) > 9 and _finnish(text)),
    _form(r"\d{6} ?\d{5}", _norwegian, r"f[øo]dselsnummer|personnummer|fnr|national id\S*"),
    _form(r"\d{11}", _polish, r"pesel"),
    _form(r"756[. ]?\d{4}[. ]?\d{4}[. ]?\d{2}", _swiss),
    _form(r"\d{9}|\d{3} \d{3} \d{3}", _portuguese, r"nif|contribuinte"),
    _form(r"[1-9]\d{10}", _turkish, r"t\.?c\.?(?: kimlik)?(?: no)?|kimlik(?: no)?|tckn"),
    _form(r"\d{3}\.\d{3}\.\d{3}-\d{2}", _brazilian),
    _form(r"\d{11}", _brazilian, r"cpf"),
    _form(r"[1-6]\d{16}[0-9Xx]", _chinese),
    _form(r"\d{6}-[1-8]\d{6}", _korean),
    _form(r"\d{13}", _south_african, r"id(?:entity)?(?: number| no)?|said|south african? id\S*"),
    _form(r"[A-Z]{4}\d{6}[HMX][A-Z]{5}[A-Z0-9]\d", _mexican),
    _form(r"\d{3} ?\d{3} ?\d{3}", _australian, r"tfn|tax file(?: number)?"),
    _form(r"\d{3}[ -]?\d{3}[ -]?\d{3}", luhn, r"sin|social insurance(?: number)?|nas"),
    _form(r"[2-9]\d{3}[ -]\d{4}[ -]\d{4}", verhoeff),
    _form(r"[2-9]\d{11}", verhoeff, r"aadhaar|aadhar|uid(?:ai)?"),
    _form(r"[A-Z]{3}[ABCFGHLJPT][A-Z]\d{4}[A-Z]", _always, r"pan(?: card| number| no)?|permanent account"),
)
# The forms that differ between countries too much to be checked: only where they are named.
_PASSPORT = re.compile(
    r"(?i)\b(?:passport|reisepass|passeport|pasaporte|passaporto|driver'?s?'? licen[cs]e|driving licen[cs]e"
    r"|führerschein|licen[cs]e plate)"
    r"(?:\s*(?:number|no\.?|nr\.?|nummer|num[ée]ro|n[úu]mero|#))?\s*(?:is|:|=|#|ist|est)?\s*"
    r"([A-Z]{0,3}[ -]?\d[A-Z0-9-]{4,14})(?!\w)"
)
_BIRTH = re.compile(
    r"(?i)\b(?:born(?: on)?|date of birth|birth ?date|birthday|d\.?o\.?b\.?|geboren(?: am)?|geburtsdatum|née? le|"
    r"date de naissance|fecha de nacimiento|naci[óo] el|data di nascita|nat[oa] il|geboortedatum)\s*(?:is|was|:|=)?\s*"
    r"(?:on )?((?:19|20)\d{2}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/. ]{1,2}\d{1,2}[-/. ]{1,2}(?:19|20)?\d{2}"
    r"|\d{1,2}(?:st|nd|rd|th|\.)? (?:of |de )?[A-Za-zÀ-ÿ]{3,10},?(?: de)? (?:19|20)\d{2}"
    r"|[A-Z][a-z]{2,9}\.? \d{1,2}(?:st|nd|rd|th)?,? (?:19|20)\d{2})\b"
)


def find_national_ids(text: str, begin: int = 0, end: int = sys.maxsize) -> Iterator[Personal]:
    for form in _FORMS:
        for match in form.pattern.finditer(text, begin, end):
            context = before(text, match.start(), _CONTEXT_CHARACTERS)
            if form.named is not None and not form.named.search(context):
                continue
            packed = re.sub(r"[ .]", "", match.group())
            if packed[-5:-4] != "-" and form.valid is not _finnish:
                packed = packed.replace("-", "")
            if not form.valid(packed):
                continue
            if form.named is None and NOT_PERSONAL.search(context):
                continue
            yield Personal(match.start(), match.end(), "national_id")
    for match in _PASSPORT.finditer(text, begin, end):
        yield Personal(match.start(1), match.end(1), "passport")


def find_birth_dates(text: str) -> Iterator[Personal]:
    """Dates that are said to be somebody's birth; any other date is none of a person's."""
    for match in _BIRTH.finditer(text):
        yield Personal(match.start(1), match.end(1), "birth_date")
