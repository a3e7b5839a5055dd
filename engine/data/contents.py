"""What a row means once it is understood: the kinds of content that finetui can learn from.

All are immutable and hashable, whatever the file they came from looked like.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
Kind = Literal["conversation", "text", "preference", "feedback", "labelled", "similar"]


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str
    learnt: bool = True
    """False for an answer that is context only (a message with `weight` 0, an answer within a prompt)."""
    more: str = ""
    """Further fields as chat templates take them (tool_calls, tool_call_id, name), as a JSON object; "" for none."""

    def as_dict(self) -> dict[str, Any]:
        """As chat templates take it."""
        return {"role": self.role, "content": self.content, **(json.loads(self.more) if self.more else {})}


@dataclass(frozen=True, slots=True)
class Conversation:
    """At least one message is an answer to learn, and no answer is empty unless it calls a tool."""

    messages: tuple[Message, ...]
    is_pair: bool = False
    """Made of one question and one answer, so that it can also be written without a chat template."""
    tools: str = ""
    """The tools that the model may call, as the JSON array that chat templates take; "" for none."""

    @property
    def answers(self) -> tuple[int, ...]:
        """Positions of the messages that may be learnt."""
        return tuple(index for index, each in enumerate(self.messages) if each.role == "assistant" and each.learnt)

    def texts(self) -> Iterator[str]:
        return (message.content for message in self.messages)


@dataclass(frozen=True, slots=True)
class PlainText:
    """Text for continued pretraining: every token is learnt, and a long text is learnt in several parts."""

    text: str

    def texts(self) -> Iterator[str]:
        yield self.text


@dataclass(frozen=True, slots=True)
class Preference:
    """One prompt with a better and a worse answer. Both conversations begin with the same messages and end with
    the one answer that is learnt."""

    chosen: Conversation
    rejected: Conversation

    def texts(self) -> Iterator[str]:
        yield from self.chosen.texts()
        yield from (message.content for message in self.rejected.messages[len(self.rejected.messages) - 1 :])


@dataclass(frozen=True, slots=True)
class Feedback:
    """A conversation whose last answer a person liked or disliked (thumbs up or down; KTO)."""

    conversation: Conversation
    liked: bool

    def texts(self) -> Iterator[str]:
        return self.conversation.texts()


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text with the classes it belongs to. `several` says that any number of them may hold at once, none included;
    otherwise there is exactly one."""

    text: str
    labels: tuple[str, ...]
    several: bool = False

    def texts(self) -> Iterator[str]:
        yield self.text


@dataclass(frozen=True, slots=True)
class Similar:
    """Two texts that mean the same for a search (a question and a passage that answers it), and some that do not."""

    anchor: str
    positive: str
    negatives: tuple[str, ...] = ()

    def texts(self) -> Iterator[str]:
        yield self.anchor
        yield self.positive
        yield from self.negatives


Content = Conversation | PlainText | Preference | Feedback | Labelled | Similar

KINDS: dict[type, Kind] = {
    Conversation: "conversation",
    PlainText: "text",
    Preference: "preference",
    Feedback: "feedback",
    Labelled: "labelled",
    Similar: "similar",
}


def kind_of(content: Content) -> Kind:
    return KINDS[type(content)]


@dataclass(frozen=True, slots=True)
class Recognised:
    content: Content
    shape: str
    """Fields that were used, for people: "messages", "prompt, completion", "text"."""
    unused: tuple[str, ...]
    """Fields of the row that change nothing."""
    groups: tuple[str | None, str | None] = (None, None)
    """The row's values of the columns that the split keeps together (group) and in balance (stratum), as text."""


class Unusable(Exception):
    """Why a row cannot be learnt from; completes the sentence "line 7 ..."."""


def content_digest(content: Content) -> int:
    """64 bits of a hash of all that is learnt from a row, whatever its file, its shape and its other fields: what
    says which rows are copies of each other. Of ten million different rows two are taken for copies once in 370,000
    data sets."""
    data = repr(_learnt(content)).encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def _learnt(content: Content) -> tuple:
    match content:
        case Conversation():
            messages = [(each.role, each.content, each.learnt, each.more) for each in content.messages]
            return ("conversation", messages, content.tools)
        case Preference():
            return ("preference", _learnt(content.chosen), _learnt(content.rejected))
        case Feedback():
            return ("feedback", _learnt(content.conversation), content.liked)
        case _:
            return (kind_of(content), astuple(content))


def text_digest(text: str) -> int:
    """64 bits of a hash of a column's value; never 0, which stands for none."""
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") or 1
