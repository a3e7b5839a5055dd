"""What a finder of personal data answers with, and the small tools that all finders share."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

PersonalType = Literal[
    "name",
    "address",
    "phone",
    "email",
    "birth_date",
    "national_id",
    "passport",
    "card",
    "iban",
    "account",
    "ip",
    "mac",
    "secret",
    "private_key",
]

# What a mask says, and what the kind is called by people.
MASKS: dict[PersonalType, str] = {
    "name": "[NAME]",
    "address": "[ADDRESS]",
    "phone": "[PHONE]",
    "email": "[EMAIL]",
    "birth_date": "[BIRTH DATE]",
    "national_id": "[ID]",
    "passport": "[PASSPORT]",
    "card": "[CARD]",
    "iban": "[IBAN]",
    "account": "[ACCOUNT]",
    "ip": "[IP]",
    "mac": "[MAC]",
    "secret": "[SECRET]",
    "private_key": "[PRIVATE KEY]",
}
WORDS: dict[PersonalType, str] = {
    "name": "names",
    "address": "addresses",
    "phone": "phone numbers",
    "email": "e-mail addresses",
    "birth_date": "birth dates",
    "national_id": "national ids",
    "passport": "passport and licence numbers",
    "card": "card numbers",
    "iban": "IBANs",
    "account": "bank account numbers",
    "ip": "IP addresses",
    "mac": "hardware (MAC) addresses",
    "secret": "keys, tokens and passwords",
    "private_key": "private keys",
}


class Personal(NamedTuple):
    """One finding: text[start:end] is of this kind."""

    start: int
    end: int
    kind: PersonalType


# What every number that is personal has, and most texts have not: six digits close together (or an Indian tax number).
LONG_NUMBER = re.compile(r"\d(?:[ .\-/()+A-Za-z\u00a0\u2011]{0,3}\d){5}|[A-Z]{5}\d{4}[A-Z]")

_BEFORE_CHARACTERS = 48


def before(text: str, start: int, characters: int = _BEFORE_CHARACTERS) -> str:
    """What stands on the same line in front of a finding, in lower case: its context."""
    line = text[max(0, start - characters) : start].lower()
    return line[line.rfind("\n") + 1 :]


def digits_of(text: str) -> str:
    """The ASCII digits of `text`."""
    return "".join(character for character in text if "0" <= character <= "9")


# Numbers that look like a person's, and are something else's. They stand right in front, perhaps with a colon or "no.".
NOT_PERSONAL = re.compile(
    r"\b(?:order|orders|invoice|bestellung|bestellnummer|rechnung|commande|facture|pedido|factura|ordine|ticket|tracking"
    r"|shipment|parcel|sku|part|item|model|serial|batch|lot|isbn(?:-1[03])?|issn|doi|ean|upc|gtin|asin|barcode|article"
    r"|artikel|version|release|build|commit|revision|rev|issue|bug|case|patent|section|chapter|page|line|port|pid"
    r"|timestamp|epoch|unix time|coordinates?|lat|lon|sha\d*|md5|hash|checksum|crc32|uuid|transaction|reference|ref"
    r"|sequence|seed|pi|id)"
    r"[\s:#=._-]*(?:(?:number|numbers|nummer|nr|no|num|id|code|key|is|was|of|num[ée]ro|número|numero)\b[\s:#=._-]*){0,2}"
    r"[\"'`(]*$"
)
