"""Personal data masked or replaced in what a row says; the file it came from is never changed."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from engine.data.contents import (
    Content,
    Conversation,
    Feedback,
    Labelled,
    Message,
    PlainText,
    Preference,
    Similar,
)
from engine.data.personal.finder import Finder, find_personal
from engine.data.personal.found import MASKS, Personal, PersonalType
from engine.data.personal.key import pseudonym_key
from engine.data.personal.name_lists import name_lists
from engine.data.personal.presidio import presidio_finders, presidio_state
from engine.data.personal.pseudonyms import Pseudonyms

__all__ = ["REDACTOR_VERSION", "Mode", "Redactor", "pseudonym_key"]

Mode = Literal["leave", "mask", "pseudonymise"]
REDACTOR_VERSION = f"1, names {presidio_state()}"
"""Changes whenever the same row would come out differently, so that what was prepared before is not used again."""


class Redactor:
    """leave: nothing is done. mask: "[EMAIL]". pseudonymise: something of the same kind, equal for equal values.

    `key` is the secret of pseudonymise; see engine.data.personal.key. `more` finders help the built-in one: Presidio
    where it is installed, unless others are given. Labels are classes, and stay.
    """

    def __init__(self, mode: Mode, key: bytes = b"", more: tuple[Finder, ...] | None = None):
        self.mode = mode
        self._more = presidio_finders() if more is None and mode != "leave" else more or ()
        self._pseudonyms = Pseudonyms(key) if mode == "pseudonymise" else None

    def apply(self, content: Content) -> tuple[Content, Counter[str]]:
        """`content` without its personal data, and how many places of each kind were changed.

        The same object comes back when there was nothing to change.
        """
        if self.mode == "leave":
            return content, Counter()
        row = _Row(self._more, self._replacement)
        match content:
            case Conversation():
                changed: Content = row.conversation(content)
            case PlainText():
                changed = PlainText(row.text(content.text))
            case Preference():
                changed = row.preference(content)
            case Feedback():
                changed = replace(content, conversation=row.conversation(content.conversation))
            case Labelled():
                changed = replace(content, text=row.text(content.text))
            case Similar():
                anchor, positive = row.text(content.anchor), row.text(content.positive)
                changed = Similar(anchor, positive, tuple(map(row.text, content.negatives)))
        return (changed, row.counts) if row.counts else (content, row.counts)

    def text(self, text: str) -> tuple[str, Counter[str]]:
        """The same for one text."""
        row = _Row(self._more, self._replacement)
        return (row.text(text), row.counts) if self.mode != "leave" else (text, row.counts)

    def _replacement(self, kind: PersonalType, found: str) -> str:
        return MASKS[kind] if self._pseudonyms is None else self._pseudonyms.replacement(kind, found)


class _Row:
    """One row while its texts are changed: a person who was named in full is then known by one name too."""

    def __init__(self, more: tuple[Finder, ...], replacement: Callable[[PersonalType, str], str]):
        self.counts: Counter[str] = Counter()
        self._more = more
        self._replacement = replacement
        self._known: set[str] = set()

    def conversation(self, conversation: Conversation) -> Conversation:
        return replace(conversation, messages=tuple(map(self._message, conversation.messages)))

    def preference(self, preference: Preference) -> Preference:
        """What both answers are to is changed once: a name that only one answer tells in full must not make their
        prompts differ."""
        chosen = self.conversation(preference.chosen)
        prompt, answer = chosen.messages[:-1], self._message(preference.rejected.messages[-1])
        return Preference(chosen, replace(preference.rejected, messages=(*prompt, answer)))

    def text(self, text: str) -> str:
        found = find_personal(text, self._more)
        for each in found:
            if each.kind == "name":
                self._known.update(_telling_words(text[each.start : each.end]))
        if self._known:
            found = sorted([*found, *_again(text, self._known, found)])
        if not found:
            return text
        self.counts.update(each.kind for each in found)
        pieces, place = [], 0
        for each in found:
            pieces += [text[place : each.start], self._replacement(each.kind, text[each.start : each.end])]
            place = each.end
        return "".join([*pieces, text[place:]])

    def _message(self, message: Message) -> Message:
        more = message.more
        if more:
            before = self.counts.total()
            changed = self._value(json.loads(more))
            if self.counts.total() > before:
                more = json.dumps(changed, ensure_ascii=False)
        return replace(message, content=self.text(message.content), more=more)

    def _value(self, value: Any) -> Any:
        """The texts of a tool call's arguments; their names stay."""
        match value:
            case str():
                return self.text(value)
            case list():
                return [self._value(each) for each in value]
            case dict():
                return {key: self._value(each) for key, each in value.items()}
        return value


def _telling_words(name: str) -> list[str]:
    """The words of a full name that tell its person when they stand alone: no initials, towns or months."""
    ambiguous = name_lists().ambiguous
    words = name.replace(",", " ").split()
    if len(words) < 2:
        return []
    return [word for word in words if len(word) > 2 and word[0].isupper() and word[-1] != "." and word not in ambiguous]


def _again(text: str, known: set[str], found: list[Personal]) -> list[Personal]:
    """Where words of a name stand alone, beside what was found."""
    words = "|".join(map(re.escape, sorted(known, key=lambda word: (-len(word), word))))
    taken = bytearray(len(text))
    for each in found:
        taken[each.start : each.end] = b"\1" * (each.end - each.start)
    return [
        Personal(match.start(), match.end(), "name")
        for match in re.finditer(rf"(?<!\w)(?:{words})(?!\w)", text)
        if taken.find(1, match.start(), match.end()) < 0
    ]
