"""The parts that a shape's columns play, for pointing at columns and for checking what a person wrote."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from engine.data.contents import Kind
from engine.data.source import Shape
from profiles.settings import Objective


@dataclass(frozen=True, slots=True)
class Part:
    """What one column is in a shape. `sentence` says it to a person who points at columns."""

    name: str
    required: bool
    sentence: str
    many: bool = False
    """Several columns may play it, named with commas between them."""


_SYSTEM = Part("system", False, "What the model is told before the conversation begins.")
_TOOLS = Part("tools", False, "The tools that the model may call, as a JSON list.")
_FURTHER = Part("further", False, "More that belongs to the question, put below it where it is not empty.")
_ASKED = Part("question", False, "What is asked: text or messages. Not needed where the answers hold the conversation.")

PARTS: dict[Shape, tuple[Part, ...]] = {
    "messages": (
        Part("messages", True, "The conversation: a list of messages, each with a role and its content."),
        _SYSTEM,
        _TOOLS,
    ),
    "pair": (
        Part("question", True, "What is asked."),
        Part("answer", True, "What the model learns to answer."),
        _FURTHER,
        _SYSTEM,
        Part("history", False, "Earlier turns, as a list of question and answer pairs."),
        _TOOLS,
    ),
    "text": (Part("text", True, "Text to go on with; all of it is learnt."),),
    "preference": (
        Part("chosen", True, "The better answer: text, a message, or the whole conversation."),
        Part("rejected", True, "The worse answer, in the same form."),
        _ASKED,
        _FURTHER,
        _SYSTEM,
        _TOOLS,
    ),
    "feedback": (
        Part("answer", True, "The answer that was judged: text, messages, or the whole conversation."),
        Part("liked", True, "Whether it was liked: true or false, 1 or 0, up or down, good or bad."),
        _ASKED,
        _FURTHER,
        _SYSTEM,
        _TOOLS,
    ),
    "labelled": (
        Part("text", True, "The text that is classified."),
        Part("label", True, "Its class or list of classes; several columns of 1 and 0 are a class each.", many=True),
        Part("further", False, "A second text, put below the first."),
    ),
    "similar": (
        Part("anchor", True, "One text of the pair, such as a question or a search."),
        Part("positive", True, "The text that belongs to it."),
        Part("negative", False, "Texts that do not belong to it.", many=True),
        Part("score", False, "How alike the two are; only pairs that are much alike are learnt from."),
    ),
    "template": (),
}

NEEDED_PARTS = frozenset(part.name for parts in PARTS.values() for part in parts if part.required)
"""Parts without which some shape is none."""

_KIND_OF_SHAPE: dict[Shape, Kind] = {
    "messages": "conversation",
    "pair": "conversation",
    "text": "text",
    "preference": "preference",
    "feedback": "feedback",
    "labelled": "labelled",
    "similar": "similar",
}
_OBJECTIVES: dict[Kind, Objective] = {
    "conversation": "next_token",
    "text": "next_token",
    "preference": "dpo",
    "feedback": "kto",
    "labelled": "classification",
    "similar": "embedding",
}
KINDS_OF_OBJECTIVE: dict[Objective, tuple[Kind, ...]] = {
    "next_token": ("conversation", "text"),
    "dpo": ("preference",),
    "orpo": ("preference",),
    "simpo": ("preference",),
    "kto": ("feedback",),
    "classification": ("labelled",),
    "embedding": ("similar",),
}
"""What each objective of the spec can learn from."""
KIND_WORDS: dict[Kind, str] = {
    "conversation": "conversations",
    "text": "plain text",
    "preference": "pairs of a better and a worse answer",
    "feedback": "answers with thumbs up or down",
    "labelled": "texts with labels",
    "similar": "pairs of similar texts",
}


def roles_of(shape: Shape) -> tuple[Part, ...]:
    """The parts that columns can play in `shape`, the required ones first among equals; none for "template"."""
    return PARTS[shape]


def kind_of_shape(shape: Shape) -> Kind:
    """What rows of a shape become; a template's rows are conversations where it has a prompt, else plain text."""
    return _KIND_OF_SHAPE[shape]


def objective_for(kind: Kind) -> Objective:
    """The objective that content of this kind is usually learnt with, as `objective.kind` of the spec names it."""
    return _OBJECTIVES[kind]


def goes_with(kind: Kind, other: Kind) -> bool:
    """Whether one run can learn from both: conversations and plain text, else only from one kind."""
    return _OBJECTIVES[kind] == _OBJECTIVES[other]


def shape_with(parts: Iterable[str]) -> Shape | None:
    """The shape that needs no other parts than these and knows them all; None where there is none."""
    given = set(parts)
    return next(
        (
            shape
            for shape, known in PARTS.items()
            if known and {part.name for part in known if part.required} <= given <= {part.name for part in known}
        ),
        None,
    )


def has_parts(shape: Shape, parts: Iterable[str]) -> bool:
    """Whether `shape` knows all these parts."""
    return set(parts) <= {part.name for part in PARTS[shape]}


def close_part(name: str, shape: Shape) -> str:
    """What to do about a part that `shape` does not have, as a sentence."""
    names = [part.name for part in PARTS[shape]]
    close = difflib.get_close_matches(name, names, n=1)
    return f"Did you mean {close[0]}?" if close else f"The parts of this shape: {', '.join(names)}."
