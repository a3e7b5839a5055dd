"""Lists of messages, as OpenAI, ShareGPT and their cousins write them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from engine.data.contents import Message, Role, Unusable
from engine.data.quoting import quoted
from engine.data.shapes.values import list_in, text_in, type_name

_ROLES: dict[str, Role] = {
    **dict.fromkeys(("system", "developer", "system_prompt"), "system"),
    **dict.fromkeys(("user", "human", "prompter", "customer"), "user"),
    **dict.fromkeys(
        ("assistant", "gpt", "chatgpt", "model", "bot", "ai", "bing", "bard", "function_call"), "assistant"
    ),
    **dict.fromkeys(("tool", "function", "observation", "tool_response", "function_response", "ipython"), "tool"),
}
_USUAL_FIELDS = {"role", "content"}
_USUAL_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
_ROLE_FIELDS = ("role", "from", "speaker")
# Types of parts that other trainers take: words of a format, and none of a row.
_PARTS_OF_OTHERS = frozenset(
    {"image_url", "image", "input_image", "input_audio", "audio", "video", "file", "input_file"}
)
_CONTENT_FIELDS = ("content", "value", "text")
# A message that is there to be read only: OpenAI's weight, Axolotl's train, Swift's loss.
_LEARNT_FIELDS = ("weight", "train", "loss")
_CALL_FIELDS = ("tool_calls", "function_call")
# What chat templates read besides role and content. `name` tells which tool answered; of other roles no template
# in use shows it.
_FURTHER_FIELDS = ("tool_call_id", "reasoning_content", "thinking")
# Anthropic's published preference data are transcripts of this form.
_TRANSCRIPT_TURN = re.compile(r"\n\n(Human|Assistant): ?")


def messages_in(value: Any, place: str, may_be_one: bool = False) -> tuple[Message, ...]:
    """The messages of a list, of its JSON text, of an object with `messages`, or of one message alone where that
    `may_be_one`: a conversation of one message has no answer."""
    value = list_in(value)
    if isinstance(value, Mapping):
        value = value.get("messages", [value] if may_be_one else value)
    if not isinstance(value, list):
        raise Unusable(f"has {type_name(value)} in {place}; wanted a list of objects with role and content")
    if not value:
        raise Unusable(f"has no messages in {place}")
    return tuple(_message(each, f"{place}[{index}]") for index, each in enumerate(value))


def is_messages(value: Any) -> bool:
    """Whether a value is meant as messages rather than as text."""
    found = list_in(value)
    if isinstance(value, str):  # an answer may be JSON of its own, so only roles tell
        return isinstance(found, list) and all(isinstance(each, Mapping) and _is_message(each) for each in found)
    return isinstance(found, list) or (isinstance(found, Mapping) and _is_message(found))


def transcript_in(text: str) -> tuple[Message, ...] | None:
    """The turns of a text of the form "\\n\\nHuman: …\\n\\nAssistant: …"; None for any other text."""
    pieces = _TRANSCRIPT_TURN.split(text)
    if len(pieces) < 5 or pieces[0].strip():
        return None
    return tuple(
        Message("user" if who == "Human" else "assistant", said.strip())
        for who, said in zip(pieces[1::2], pieces[2::2], strict=True)
    )


def tools_in(value: Any, place: str) -> str:
    """Definitions of tools as the JSON array that chat templates take; "" for none."""
    value = list_in(value)
    if value is None or value == "" or value == []:
        return ""
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise Unusable(f"has {type_name(value)} in {place}; wanted a list of tool definitions")
    # The older form lists the functions themselves.
    tools = [each if "function" in each or "type" in each else {"type": "function", "function": each} for each in value]
    return _json(tools, place)


def unknown_fields(messages: Any) -> tuple[str, ...]:
    """Names of fields of messages that change nothing."""
    found = list_in(messages)
    if not isinstance(found, list):
        return ()
    return tuple(
        dict.fromkeys(
            key
            for each in found
            if isinstance(each, Mapping) and each.keys() != _USUAL_FIELDS
            for key in each
            if key not in _KNOWN_FIELDS and each[key] is not None and not (key == "name" and _role_name(each) in _NAMED)
        )
    )


_KNOWN_FIELDS = frozenset((*_ROLE_FIELDS, *_CONTENT_FIELDS, *_LEARNT_FIELDS, *_CALL_FIELDS, *_FURTHER_FIELDS))
_NAMED = frozenset(name for name, role in _ROLES.items() if role == "tool")


def _is_message(value: Mapping[str, Any]) -> bool:
    return "messages" in value or any(name in value for name in _ROLE_FIELDS)


def _message(value: Any, place: str) -> Message:
    if not isinstance(value, Mapping):
        raise Unusable(f"has {type_name(value)} in {place}; wanted an object with role and content")
    if value.keys() == _USUAL_FIELDS:  # most messages by far, so they are read without looking for anything else
        role, text = value["role"], value["content"]
        usual = _USUAL_ROLES.get(role) if isinstance(role, str) else None
        if usual and isinstance(text, str) and (usual != "assistant" or text.strip()):
            return Message(usual, text)
    role_field = _first_present(value, _ROLE_FIELDS)
    if role_field is None:
        raise Unusable(f"has no role in {place}")
    if not isinstance(value[role_field], str):
        raise Unusable(f"has {type_name(value[role_field])} in {place}.{role_field}; wanted text")
    name = _role_name(value)
    known = _ROLES.get(name)
    if known is None:
        raise Unusable(
            f"has the unknown role {quoted(value[role_field], 40)} in {place}; known: system, user, assistant, tool"
        )
    calls = _tool_calls(value, place)
    content_field = _first_present(value, _CONTENT_FIELDS)
    if content_field is None and not calls:
        raise Unusable(f"has no content in {place}")
    said = value.get(content_field) if content_field else None
    content = "" if said is None and calls else _content(said, f"{place}.{content_field}")
    if name == "function_call" and not calls and (call := _as_calls(content, place)):
        calls, content = call, ""
    if known == "assistant" and not content.strip() and not calls:
        raise Unusable(f"has an empty answer in {place}: there is nothing to learn")
    further = {key: value[key] for key in _FURTHER_FIELDS if value.get(key)}
    if known == "tool" and value.get("name"):
        further["name"] = value["name"]
    if calls:
        further["tool_calls"] = calls
    return Message(known, content, _is_learnt(value, place), _json(further, place) if further else "")


def _role_name(message: Mapping[str, Any]) -> str:
    field = _first_present(message, _ROLE_FIELDS)
    return str(message[field]).strip().lower() if field else ""


def _tool_calls(message: Mapping[str, Any], place: str) -> list[Any]:
    """The calls of a message, with arguments as objects, which is what chat templates expect."""
    calls = list_in(message.get("tool_calls")) or []
    if not isinstance(calls, list) or not all(isinstance(each, Mapping) for each in calls):
        raise Unusable(f"has {type_name(calls)} in {place}.tool_calls; wanted a list of tool calls")
    if not calls and isinstance(older := message.get("function_call"), Mapping):
        calls = [{"type": "function", "function": older}]
    return [_tool_call(each, place) for each in calls]


def _tool_call(call: Mapping[str, Any], place: str) -> dict[str, Any]:
    function = call.get("function", call)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise Unusable(f"has a tool call without a name in {place}")
    function = {**function, "arguments": list_in(function.get("arguments") or {})}
    return {**call, "function": function} if "function" in call else {"type": "function", "function": function}


def _as_calls(content: str, place: str) -> list[Any]:
    """The call or calls that a `function_call` turn of ShareGPT's kind holds as JSON text; none for other text."""
    found = list_in(content)
    calls = found if isinstance(found, list) else [found]
    if not all(isinstance(each, Mapping) and isinstance(each.get("name"), str) for each in calls):
        return []
    return [_tool_call(each, place) for each in calls]


def _is_learnt(message: Mapping[str, Any], place: str) -> bool:
    for field in _LEARNT_FIELDS:
        if (value := message.get(field)) is None:
            continue
        if (field == "weight" and isinstance(value, bool)) or value not in (0, 1):
            raise Unusable(f"has a {field} in {place} that is neither 0 nor 1")
        return bool(value)
    return True


def _content(value: Any, place: str) -> str:
    """Text, or OpenAI's list of parts when all of them are text."""
    if not isinstance(value, list):
        return text_in(value, place)
    texts = []
    for index, part in enumerate(value):
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise Unusable(f"has {type_name(part)} in {place}[{index}]; wanted a part with type and text")
        if part["type"] != "text":
            kind = part["type"] if part["type"] in _PARTS_OF_OTHERS else quoted(part["type"], 40)
            raise Unusable(f"has a part of type {kind} in {place}[{index}]; only text is learnt, nothing is fetched")
        texts.append(text_in(part.get("text"), f"{place}[{index}].text"))
    return "".join(texts)


def _json(value: Any, place: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise Unusable(f"has a tool or tool call in {place} that cannot be written as JSON") from None


def _first_present(value: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The first of these fields that is not null, else the first that is there."""
    present = [name for name in names if name in value]
    return next((name for name in present if value[name] is not None), present[0] if present else None)
