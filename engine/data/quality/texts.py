"""Which of a row's texts the report looks at, and for what."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from engine.data.contents import Content, Conversation, Feedback, Labelled, PlainText, Preference, Similar
from profiles.problem import printable

EXCERPT_ARROW = " → "


def compared_text(content: Content) -> str:
    """What near duplicates are told by: all that is asked and answered, but no system message, which many rows
    share and which would make them all alike."""
    return "\n".join(compared_texts(content))


def compared_texts(content: Content) -> tuple[str, ...]:
    """The same, message by message."""
    match content:
        case Conversation():
            return tuple(each.content for each in content.messages if each.role != "system")
        case Feedback():
            return compared_texts(content.conversation)
        case Preference():
            return (*compared_texts(content.chosen), *answers(content)[1:])
        case _:
            return tuple(content.texts())


def answers(content: Content) -> tuple[str, ...]:
    """What is learnt to be said: none for texts that have no question."""
    match content:
        case Conversation():
            return tuple(content.messages[index].content for index in content.answers)
        case Feedback():
            return answers(content.conversation)
        case Preference():
            return (*answers(content.chosen), *answers(content.rejected)[-1:])
        case _:
            return ()


def question(content: Content) -> str:
    """What a benchmark row asks: leaking that alone is leaking the row."""
    match content:
        case Conversation():
            return "\n".join(each.content for each in content.messages if each.role == "user")
        case Feedback():
            return question(content.conversation)
        case Preference():
            return question(content.chosen)
        case Similar():
            return content.anchor
        case Labelled() | PlainText():
            return content.text


def texts_digest(texts: Sequence[str]) -> int:
    """64 bits of a hash of texts, the space around each aside."""
    joined = "\x00".join(text.strip() for text in texts)
    digest = hashlib.blake2b(joined.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def excerpt(content: Content) -> str:
    """A row in one short line: what is asked and, behind EXCERPT_ARROW, what is learnt to be said."""
    asked, answered = printable(question(content)[:200], 60), answers(content)
    return f"{asked}{EXCERPT_ARROW}{printable(answered[0][:200], 60)}" if answered else asked
