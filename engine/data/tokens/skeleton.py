"""What a chat template writes around the contents of conversations with one sequence of roles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from engine.data.contents import Message, Role

# Letters and digits only, so that no template trims or escapes any of it.
_MARKER = re.compile(r"finetui7c1eslot(\d+)end")


def marker_of(index: int) -> str:
    """What stands for the content of the message at `index` in a conversation that a skeleton is made from."""
    return f"finetui7c1eslot{index}end"


def absent_from(text: str) -> str:
    """A marker that `text` does not hold."""
    number = 0
    while (marker := f"answerstandshere{number}answerstandshere") in text:
        number += 1
    return marker


@dataclass(frozen=True, slots=True)
class Fit:
    """A conversation that fits a skeleton; the fields are those of Rendered."""

    text: str
    answers: tuple[tuple[int, int], ...]
    lacks_stop: bool
    altered: tuple[Role, ...]


@dataclass(frozen=True, slots=True)
class Skeleton:
    parts: tuple[str, ...]
    """The template's own text before, between and behind the contents."""
    slots: tuple[int, ...]
    """Which message stands behind each part but the last."""
    reaches: dict[int, tuple[int, int]]
    """For the slot of each answer, how many characters before and behind its content belong to it."""
    absent: tuple[int, ...]
    """Messages that the template leaves out."""
    ends_open: bool
    """Nothing ends the last answer, and only white space stands behind it."""

    @classmethod
    def of(cls, roles: Sequence[Role], text: str, answers: Sequence[tuple[int, int]]) -> Skeleton | None:
        """From the `text` of a conversation of markers and where its answers lie in it, with nothing left out behind
        the last one. None when this template does not simply put contents one behind the other."""
        found = list(_MARKER.finditer(text))
        slots = tuple(int(each[1]) for each in found)
        positions = [index for index, role in enumerate(roles) if role == "assistant"]
        if list(slots) != sorted(set(slots)) or not set(positions) <= set(slots):
            return None
        edges = [0, *(edge for each in found for edge in each.span()), len(text)]
        parts = tuple(text[edges[at] : edges[at + 1]] for at in range(0, len(edges), 2))
        reaches = {}
        for index, (begins, ends) in zip(positions, answers, strict=True):
            slot = slots.index(index)
            before, behind = found[slot].start() - begins, ends - found[slot].end()
            if not (0 <= before <= len(parts[slot]) and 0 <= behind <= len(parts[slot + 1])):
                return None
            reaches[slot] = (before, behind)
        ends_open = bool(slots) and positions[-1:] == [slots[-1]] == [len(roles) - 1]
        ends_open = ends_open and reaches[len(slots) - 1][1] == 0 and not parts[-1].strip()
        absent = tuple(index for index in range(len(roles)) if index not in slots)
        return cls(parts, slots, reaches, absent, ends_open)

    def fit(self, text: str, messages: Sequence[Message]) -> Fit | None:
        """The answers in `text`, what the template wrote for `messages`; None when it wrote something else around the
        contents than this, or changed them otherwise than by stripping white space."""
        at = len(self.parts[0])
        if not text.startswith(self.parts[0]):
            return None
        answers = []
        for slot, index in enumerate(self.slots):
            content, part = messages[index].content, self.parts[slot + 1]
            ends = at + len(content)
            if not (text.startswith(content, at) and text.startswith(part, ends)):
                content = content.strip()
                ends = at + len(content)
                if not (text.startswith(content, at) and text.startswith(part, ends)):
                    return None
            if slot in self.reaches and messages[index].learnt:
                before, behind = self.reaches[slot]
                answers.append((at - before, ends + behind))
            at = ends + len(part)
        if at != len(text):
            return None
        lacks_stop = False
        if self.ends_open:
            text, lacks_stop = text[: at - len(self.parts[-1])], messages[-1].learnt
        altered = {messages[index].role for index in self.absent if messages[index].content.strip() not in text}
        return Fit(text, tuple(answers), lacks_stop, tuple(sorted(altered)))
