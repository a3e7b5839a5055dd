"""Names of persons: by lists of given names and surnames, by titles, and by words that announce a name.

Careful rather than complete: a given name alone ("Paris", "Grace") is not taken for a person's, and persons of
history who are spoken of by their full name are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import zip_longest

from engine.data.personal.found import Personal
from engine.data.personal.name_lists import NameLists, name_lists

_UPPER = "A-ZÀ-ÖØ-ÞĀĂĄĆČĎĐĒĘĚĞĢĪİĶŁĽĻŃŇŅŌŐŒŘŚŞŠŤŪŮŰŹŻŽА-ЯЁ"
_LOWER = "a-zß-öø-ÿāăąćčďđēęěğģīıķłľļńňņōőœřśşšťūůűźżžа-яё"
_CAPITALISED = rf"[{_UPPER}](?:['’][{_UPPER}])?[{_LOWER}]+(?:(?:[-'’]|(?<=Mc)|(?<=Mac))[{_UPPER}][{_LOWER}]+)*"
_WORD = re.compile(rf"(?<![\w@/#.\\-]){_CAPITALISED}(?![\w@/\\])")
# What may stand between a given name and a surname, and the surname.
_FOLLOWING = re.compile(
    rf"((?: [{_UPPER}]\.| {_CAPITALISED})?)"
    r"((?: (?:van der|van den|van de|von der|de la|van|von|de|del|della|di|da|dos|bin|ibn|al|el|ter|ten|zu|y|st\.))?)"
    rf" ({_CAPITALISED})(?![\w@/\\])"
)
_AFTER_TITLE = re.compile(rf"\.? ({_CAPITALISED}(?: [{_UPPER}]\.)?(?: {_CAPITALISED})?)(?![\w@/\\])")
_GREETED = re.compile(rf" ({_CAPITALISED})(?=[,!.\n])")
_FAREWELLS = re.compile(
    r"(?:[Rr]egards|[Ss]incerely|[Cc]heers|Best|Thanks|[Tt]hank you|Yours|Grüßen?|Gruß|Cordialement|Saludos|Saluti)"
    rf",?\s{{1,3}}({_CAPITALISED})(?: {_CAPITALISED})?\s*(?:$|\n)"
)
_SAID = re.compile(
    r"(?:[Mm]y (?:full )?name is|[Nn]ame is|[Ii] am called|[Mm]ein Name ist|[Ii]ch hei(?:ß|ss)e"
    r"|[Jj]e m['’]appelle|[Mm]e llamo|[Mm]i nombre es|[Mm]i chiamo|[Mm]eu nome é|[Ii]k heet"
    r"|[Nn]azywam się|[Мм]еня зовут) "
    rf"({_CAPITALISED}(?: {_CAPITALISED}){{0,2}})(?![\w@/\\])"
)
# One of these is in every match; looking for them takes a hundredth of the time.
_SAID_WORDS = (
    "ame is",
    "called",
    "ame ist",
    "ch hei",
    "appelle",
    "llamo",
    "nombre",
    "chiamo",
    "nome",
    "heet",
    "zywam",
    "зовут",
)
_FIELD = re.compile(
    r"(?:[Nn]ame|NAME|[Pp]atient|[Cc]ustomer|[Cc]lient|[Ee]mployee|[Cc]ontact|[Cc]ard ?holder|[Nn]om"
    r"|[Nn]ombre|[Nn]ome|[Ss]ender|[Rr]ecipient)[\"'*_]*[ \t]?[:=][ \t\"'*_]*"
    rf"({_CAPITALISED}(?: [{_UPPER}]\.)?(?: {_CAPITALISED}){{1,2}})(?![\w@/\\])"
)


def find_names(text: str) -> Iterator[Personal]:
    lists = name_lists()
    words = list(_WORD.finditer(text))
    for word, following in zip_longest(words, words[1:]):
        name = word.group()
        if name in lists.given or name.partition("-")[0] in lists.given:
            yield from _with_surname(text, word, lists)
        if name in lists.titles:
            yield from _titled(text, word, lists)
        elif name in lists.greetings:
            yield from _alone(_GREETED.match(text, word.end()), lists)
        elif following and _is_reversed(text, word, following, lists):
            yield Personal(word.start(), following.end(), "name")
    if words:
        yield from _announced(text, lists)


def _with_surname(text: str, word: re.Match[str], lists: NameLists) -> Iterator[Personal]:
    """A given name of the list and the surname behind it."""
    following = _FOLLOWING.match(text, word.end())
    if following is None:
        return
    middle, particle, surname = following[1].strip(), following[2], following[3]
    end = following.end()
    # "Anna Schmidt Berlin": what follows the surname is no name.
    is_over = surname in lists.not_surnames or (middle in lists.surnames and surname not in lists.surnames)
    if middle and not middle.endswith(".") and not particle and is_over:
        surname, end = middle, following.end(1)
    if _is_person(text, word.group(), surname, bool(particle), end, lists):
        yield Personal(word.start(), end, "name")


def _is_reversed(text: str, word: re.Match[str], following: re.Match[str], lists: NameLists) -> bool:
    """A surname and the given name behind it: "Tanaka Hiroshi"; "Smith, John"."""
    surname, given = word.group(), following.group()
    if surname not in lists.surnames or given not in lists.given or {surname, given} & lists.ambiguous:
        return False
    return text[word.end() : following.start()] in (" ", ", ")


def _titled(text: str, word: re.Match[str], lists: NameLists) -> Iterator[Personal]:
    match = _AFTER_TITLE.match(text, word.end())
    if match is None or match[1].split(" ")[0] in lists.not_surnames:
        return
    yield Personal(*_trimmed(match.start(1), match[1], lists), "name")


def _alone(match: re.Match[str] | None, lists: NameLists) -> Iterator[Personal]:
    """A given name in a place where hardly anything else stands."""
    if match is not None and match[1] in lists.given and match[1] not in lists.ambiguous:
        yield Personal(match.start(1), match.end(1), "name")


def _announced(text: str, lists: NameLists) -> Iterator[Personal]:
    """What is said to be a name, in a sentence, in a form's field or at the end of a letter."""
    for match in _SAID.finditer(text) if any(map(text.__contains__, _SAID_WORDS)) else ():
        first, *others = match[1].split(" ")
        is_known = first in lists.given or bool(others and others[-1] in lists.surnames)
        # "My name is Xandra" is a person's; "the file's name is Report" is not.
        if (is_known or match.group()[:7].lower() != "name is") and first not in lists.not_surnames:
            yield Personal(*_trimmed(match.start(1), match[1], lists), "name")
    for match in _FIELD.finditer(text) if ":" in text or "=" in text else ():
        words = match[1].split(" ")
        if (words[0] in lists.given or words[-1] in lists.surnames) and not lists.is_public(match[1]):
            yield Personal(match.start(1), match.end(1), "name")
    for match in _FAREWELLS.finditer(text) if "\n" in text else ():
        yield from _alone(match, lists)


def _is_person(text: str, given: str, surname: str, has_particle: bool, end: int, lists: NameLists) -> bool:
    if surname in lists.not_surnames or lists.is_public(f"{given} {surname}"):
        return False
    next_word = _WORD.match(text, end + 1) if text[end : end + 1] == " " else None
    if next_word and next_word.group() in lists.organisations:
        return False
    if surname in lists.surnames:
        return not (given in lists.ambiguous and surname in lists.ambiguous)
    return given not in lists.ambiguous or has_particle


def _trimmed(start: int, found: str, lists: NameLists) -> tuple[int, int]:
    """The place of a name without words at its end that are no part of it ("my name is Anna Monday")."""
    words = found.split(" ")
    while len(words) > 1 and words[-1] in lists.not_surnames:
        words.pop()
    return start, start + len(" ".join(words))
