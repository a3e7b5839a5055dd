"""Postal addresses: a house number with a street as several countries write them, with the town that follows."""

from __future__ import annotations

import re
from collections.abc import Iterator

from engine.data.personal.found import Personal

_CAPITAL = "A-ZÀ-ÖØ-ÞŁŚŻŠČŽ"
_SMALL = "a-zß-öø-ÿłśżšč"
_WORD = rf"[{_CAPITAL}][{_CAPITAL}{_SMALL}'’.-]*"
_NAMES = rf"(?:{_WORD}|\d{{1,3}}(?:st|nd|rd|th))(?: (?:{_WORD}|of|the|de|la|del|den|der|van)){{0,3}}"

# 221B Baker Street, Apt 4, London NW1 6XE; 1600 Pennsylvania Avenue NW, Washington, DC 20500
_ENGLISH = re.compile(
    rf"(?<![\w.,$€£-])\d{{1,5}}[A-Za-z]?(?:[-/]\d{{1,4}})? {_NAMES} "
    r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Place|Pl|Terrace|Square|Sq|Crescent|Close|"
    r"Parkway|Pkwy|Highway|Hwy|Circle|Cir|Gardens|Grove|Mews|Row|Way|Trail|Walk|Quay)\b\.?"
    r"(?: (?:N|S|E|W|NE|NW|SE|SW|North|South|East|West)\b)?"
    r"(?:,? (?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor|#)\.? ?[\w-]{1,6})?"
    rf"(?:(?:,|,?\n) ?{_WORD}(?!\w)(?: {_WORD}(?!\w)){{0,2}})?(?:,? [A-Z]{{2}}\b)?(?:,? \d{{5}}(?:-\d{{4}})?\b"
    r"|,? [A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}\b)?"
)
_BOX = re.compile(r"\b(?:P\.? ?O\.? ?Box|Postfach|Bo[îi]te postale|Apartado)(?: No\.?)? \d{2,6}\b")
# Hauptstraße 12a, 10115 Berlin; Damrak 1, 1012 LG Amsterdam
_GERMANIC = re.compile(
    rf"\b[{_CAPITAL}][{_SMALL}-]*(?:straße|strasse|str\.|weg|platz|allee|gasse|ufer|damm|straat|laan|plein|gracht"
    rf"|vägen|gatan|vej|veien)"
    rf" \d{{1,4}} ?[a-z]?\b(?: ?[-/] ?\d{{1,4}}[a-z]?)?(?:,? (?:[A-Z]{{1,2}}-)?\d{{4,5}}(?: [A-Z]{{2}}\b)? {_WORD})?"
    rf"|\b[{_CAPITAL}][{_SMALL}-]*(?:ring|kade|gata|gade|hof|markt) \d{{1,4}}[a-z]?,? \d{{4,5}}(?: [A-Z]{{2}})? {_WORD}"
    rf"|\b(?:Am|An der|Auf der|Im|Unter den|Zum|Zur) {_WORD} \d{{1,4}}[a-z]?,? \d{{5}} {_WORD}"
    rf"|\b{_WORD}(?:-{_WORD}|(?: {_WORD}))?[- ](?:Straße|Strasse|Str\.|Weg|Platz|Allee|Ring) \d{{1,4}} ?[a-z]?\b"
    rf"(?:,? \d{{4,5}} {_WORD})?"
)
# 12 bis, rue de la Paix, 75002 Paris
_FRENCH = re.compile(
    rf"(?<![\w.,-])\d{{1,4}}(?: ?(?:bis|ter))?,? (?:rue|avenue|boulevard|bd|place|impasse|chemin|quai|allée|cours"
    rf"|route) (?:(?:de|du|des|la|le|les|l'|d'|à|aux|en)[ ]?){{0,3}}{_WORD}(?:[ -](?:de |du |la |des )?{_WORD}){{0,3}}"
    rf"(?:,? \d{{5}} {_WORD})?"
)
# Calle Mayor 5, 28013 Madrid; Via Roma, 12, 00184 Roma; Rua Augusta, 1500; ul. Marszałkowska 10
_ROMANCE = re.compile(
    rf"\b(?:Calle|C/|Avenida|Avda?\.|Plaza|Paseo|Camino|Via|Viale|Piazza|Corso|Vicolo|Rua|Travessa|Praça|Largo|ul\.|al\.)"
    rf" ?(?:(?:de|del|la|las|los|el|della|dei|do|da|dos) ){{0,3}}{_WORD}(?: (?:de |del |da )?{_WORD}){{0,3}},?"
    rf" (?:n[º°o]\.? ?|núm\.? ?)?\d{{1,4}}[a-zA-Z]?\b(?:[,]? (?:\d{{5}}|\d{{2}}-\d{{3}}|\d{{4}}-\d{{3}}) {_WORD})?"
)
# "3 Steps Way" of a title, "2 Days Drive", "5 Star Place".
_NO_STREETS = re.compile(
    r"\d+\w* (?:Star|Steps?|Days?|Hours?|Minutes?|Years?|Weeks?|Months?|Miles?|Things|Ways?|Best|Top|Great|New|More"
    r"|Other|Points?|Percent|Million|Billion|GB|TB|Wall Street (?:firms|banks))\b"
)


def find_addresses(text: str) -> Iterator[Personal]:
    for pattern in (_ENGLISH, _BOX, _GERMANIC, _FRENCH, _ROMANCE):
        for match in pattern.finditer(text):
            if not _NO_STREETS.match(match.group()):
                found = match.group().rstrip(" ,.\n")
                yield Personal(match.start(), match.start() + len(found), "address")
