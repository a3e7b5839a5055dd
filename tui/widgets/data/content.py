"""What a row holds, in parts with the word for each: the same for every kind of content."""

from __future__ import annotations

from dataclasses import dataclass

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
from engine.data.shapes.parts import KIND_WORDS
from profiles.problem import printable

__all__ = ["KIND_WORDS", "Part", "classes_of", "on_terminal", "parts_of", "snippet"]


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of a row: who says it or what it is, and whether a model learns to write it."""

    word: str
    text: str
    learnt: bool


def parts_of(content: Content) -> list[Part]:
    """The pieces of a row in the order in which they are read."""
    if isinstance(content, Conversation):
        tools = [Part("tools", content.tools, False)] if content.tools else []
        return tools + [_turn(each) for each in content.messages]
    if isinstance(content, PlainText):
        return [Part("text", content.text, True)]
    if isinstance(content, Preference):
        *before, better = parts_of(content.chosen)
        worse = _turn(content.rejected.messages[-1])
        return [*before, Part("better", better.text, True), Part("worse", worse.text, True)]
    if isinstance(content, Feedback):
        return [*parts_of(content.conversation), Part("thumb", "up" if content.liked else "down", True)]
    if isinstance(content, Labelled):
        said = ", ".join(content.labels) or "none"
        return [Part("text", content.text, False), Part("labels" if content.several else "label", said, True)]
    assert isinstance(content, Similar)
    negatives = [Part("unlike", each, True) for each in content.negatives]
    return [Part("text", content.anchor, True), Part("similar", content.positive, True), *negatives]


def classes_of(content: Content) -> tuple[str, ...]:
    """The classes that a row belongs to, where its kind has any."""
    if isinstance(content, Labelled):
        return content.labels
    if isinstance(content, Feedback):
        return ("thumb up",) if content.liked else ("thumb down",)
    return ()


def snippet(content: Content, limit: int = 200) -> str:
    """The beginning of what is asked or said, on one line."""
    parts = parts_of(content)
    first = next((part for part in parts if part.word in ("user", "text")), parts[0])
    return printable(" ".join(first.text[: 4 * limit].split()), limit)


def on_terminal(text: str, limit: int) -> str:
    """A row's text, safe to draw, with its own line breaks; cut after `limit` characters."""
    shown = text[:limit]
    lines = [printable(line, limit) for line in shown.expandtabs(4).splitlines()]
    return "\n".join(lines) + ("…" if len(text) > len(shown) else "")


def _turn(message: Message) -> Part:
    text = message.content
    if message.more:
        text = f"{text}\n{message.more}" if text else message.more
    return Part(message.role, text, message.role == "assistant" and message.learnt)
