"""What a row means: a conversation, plain text, or a reason why it is neither.

Recognised by the names of the fields, in this order: `messages` or `conversations` (role and content, or
ShareGPT's from and value), two fields of which one is asked and the other answered, and `text`. A reason
completes the sentence "line 7 ...".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from engine.data.contents import Conversation, Message, PlainText, Recognised, Role, Unusable
from engine.data.json_faults import type_name
from profiles.problem import printable

CONVERSATION_FIELDS = ("messages", "conversations", "conversation")

# Question, further input that may be absent or empty, and answer.
PAIR_FIELDS: tuple[tuple[str, str | None, str], ...] = (
    ("prompt", None, "completion"),
    ("prompt", None, "response"),
    ("instruction", "input", "output"),
    ("instruction", "context", "response"),
    ("question", "context", "answer"),
    ("query", None, "response"),
    ("input", None, "output"),
)

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
_ROLE_FIELDS = ("role", "from")
_CONTENT_FIELDS = ("content", "value")
# Leaving these out would teach something other than what the row says.
_NOT_TRAINED_YET = {
    "chosen": "a preferred and a rejected answer",
    "tools": "tool definitions",
    "functions": "tool definitions",
    "tool_calls": "a tool call",
    "function_call": "a tool call",
}


def recognise(row: Mapping[str, Any]) -> Recognised:
    """What `row` means. Raises Unusable with the reason."""
    _refuse_untrained(row, "")
    if field := next((name for name in CONVERSATION_FIELDS if name in row), None):
        messages = _messages(row[field], field)
        return _conversation(row, _with_system(row, messages), (field,))
    for question, further, answer in PAIR_FIELDS:
        if question in row and answer in row:
            return _pair(row, question, further, answer)
    if "text" in row:
        text = _text(row["text"], "text")
        if not text.strip():
            raise Unusable("has an empty text: there is nothing to learn")
        return Recognised(PlainText(text), "text", _unused(row, ("text",)))
    found = ", ".join(printable(key, 40) for key in list(row)[:6]) or "none"
    raise Unusable(
        f"has no fields that are known (found: {found}); wanted messages, prompt and completion, "
        "instruction and output, question and answer, or text"
    )


def _pair(row: Mapping[str, Any], question: str, further: str | None, answer: str) -> Recognised:
    if isinstance(row[question], list) and isinstance(row[answer], list):
        asked = _messages(row[question], question)
        context = tuple(replace(each, learnt=each.role != "assistant") for each in asked)
        messages = context + _messages(row[answer], answer)
        return _conversation(row, _with_system(row, messages), (question, answer))
    asked_text = _text(row[question], question)
    used = [question, answer]
    if further and row.get(further) is not None:
        used.insert(1, further)
        if more := _text(row[further], further):
            asked_text = f"{asked_text}\n\n{more}"
    answered = _text(row[answer], answer)
    if not answered.strip():
        raise Unusable(f"has an empty {answer}: there is nothing to learn")
    if not asked_text and "system" not in row:
        raise Unusable(f'has an empty {question}; write text to continue as {{"text": ...}}')
    pair = (Message("user", asked_text), Message("assistant", answered))
    messages = _with_system(row, pair)
    return _conversation(row, messages, tuple(used), is_pair=messages is pair)


def _conversation(
    row: Mapping[str, Any], messages: tuple[Message, ...], used: tuple[str, ...], is_pair: bool = False
) -> Recognised:
    conversation = Conversation(messages, is_pair)
    if not any(message.role == "assistant" for message in messages):
        raise Unusable(f"has no assistant turn in {used[-1]}: there is nothing to learn")
    if not conversation.answers:
        raise Unusable("has weight 0 on every answer: there is nothing to learn")
    if messages[0].role == "system" and "system" in row:
        used = (*used, "system")
    return Recognised(conversation, ", ".join(used), _unused(row, used) + _unused_in_messages(row, used))


def _with_system(row: Mapping[str, Any], messages: tuple[Message, ...]) -> tuple[Message, ...]:
    if row.get("system") is None:
        return messages
    system = _text(row["system"], "system")
    if not system.strip():
        return messages
    if messages[0].role == "system":
        raise Unusable("has a field `system` and a system message too; keep one of them")
    return (Message("system", system), *messages)


def _messages(value: Any, field: str) -> tuple[Message, ...]:
    if not isinstance(value, list):
        raise Unusable(f"has {type_name(value)} in {field}; wanted a list of objects with role and content")
    if not value:
        raise Unusable(f"has no messages in {field}")
    return tuple(_message(each, f"{field}[{index}]") for index, each in enumerate(value))


def _message(value: Any, place: str) -> Message:
    if not isinstance(value, dict):
        raise Unusable(f"has {type_name(value)} in {place}; wanted an object with role and content")
    _refuse_untrained(value, f" in {place}")
    role_field = _first_present(value, _ROLE_FIELDS)
    content_field = _first_present(value, _CONTENT_FIELDS)
    if role_field is None:
        raise Unusable(f"has no role in {place}")
    role = value[role_field]
    if not isinstance(role, str):
        raise Unusable(f"has {type_name(role)} in {place}.{role_field}; wanted text")
    known = _ROLES.get(role.strip().lower())
    if known is None:
        raise Unusable(
            f"has the unknown role {printable(repr(role), 40)} in {place}; known: system, user, assistant, tool"
        )
    if content_field is None:
        raise Unusable(f"has no content in {place}")
    content = _content(value[content_field], f"{place}.{content_field}")
    if known == "assistant" and not content.strip():
        raise Unusable(f"has an empty answer in {place}: there is nothing to learn")
    return Message(known, content, learnt=_weight(value, place) != 0)


def _weight(message: Mapping[str, Any], place: str) -> int:
    weight = message.get("weight", 1)
    if weight is None:
        return 1
    if isinstance(weight, bool) or weight not in (0, 1):
        raise Unusable(f"has a weight in {place} that is neither 0 nor 1")
    return int(weight)


def _content(value: Any, place: str) -> str:
    """Text, or OpenAI's list of parts when all of them are text."""
    if not isinstance(value, list):
        return _text(value, place)
    texts = []
    for index, part in enumerate(value):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise Unusable(f"has {type_name(part)} in {place}[{index}]; wanted a part with type and text")
        if part["type"] != "text":
            kind = printable(part["type"], 40)
            raise Unusable(f"has a part of type {kind} in {place}[{index}]; only text is learnt, nothing is fetched")
        texts.append(_text(part.get("text"), f"{place}[{index}].text"))
    return "".join(texts)


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise Unusable(f"has {type_name(value)} in {place}; wanted text")
    return value


def _first_present(value: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if name in value), None)


def _refuse_untrained(value: Mapping[str, Any], place: str) -> None:
    for field, what in _NOT_TRAINED_YET.items():
        if value.get(field):
            raise Unusable(f"has {what} (`{field}`){place}, which finetui cannot train on yet")


def _unused(row: Mapping[str, Any], used: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(key for key in row if key not in used)


def _unused_in_messages(row: Mapping[str, Any], used: tuple[str, ...]) -> tuple[str, ...]:
    known = (*_ROLE_FIELDS, *_CONTENT_FIELDS, "weight")
    lists = [(name, row[name]) for name in used if isinstance(row.get(name), list)]
    return tuple(
        dict.fromkeys(
            f"{name}[].{key}" for name, messages in lists for each in messages for key in each if key not in known
        )
    )
