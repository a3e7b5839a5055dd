"""Where the answers lie in a conversation rendered with a model's own chat template.

The template is a program, so nothing is assumed of its looks. An answer's text is found by rendering the conversation
once more with a marker in the answer's place; the answer then begins where the template's generation prompt ends, which
is where the model takes over when it is asked, and ends with the stop token that follows its text.

Conversations with the same roles mostly get the same text around their contents. So what was found out about one is
kept as a Skeleton, and another that fits it to the letter needs to be rendered only once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from engine.data.contents import Conversation, Message, Role, Unusable
from engine.data.tokens.encoded import LEAVES_OUT_TOOLS
from engine.data.tokens.sandbox import compile_template, render_limited
from engine.data.tokens.skeleton import Skeleton, absent_from, marker_of
from engine.data.tokens.text_tokenizer import TextTokenizer

_WHERE = "the chat template"
_PROBE = (Message("user", "x"),)
# Sequences of roles in a data set: one for each number of turns, with and without a system message.
_SKELETONS_KEPT = 1024
# Names under which a message's thoughts come; templates read the first, older ones the second.
_THOUGHTS = ("reasoning_content", "thinking", "reasoning")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A row as the text that is tokenised."""

    text: str
    answers: tuple[tuple[int, int], ...]
    """For each answer that may be learnt, in order, where it begins and ends in `text`, in characters; with its stop
    token and without white space after that."""
    lacks_frame: bool = False
    """What the tokenizer puts around text is still missing at both ends: the text is no answer to anything."""
    lacks_start: bool = False
    """No template wrote the text, so what the tokenizer puts in front of text is still missing."""
    lacks_stop: bool = False
    """Nothing in the text ends the last answer, so the end-of-text token must be put behind it."""
    altered: tuple[Role, ...] = ()
    """Roles of messages whose text the template left out or changed."""
    warnings: tuple[str, ...] = ()


class ChatTemplate:
    """The chat template of a tokenizer that has one. Raises Problem when the template is not valid Jinja."""

    def __init__(self, tokenizer: TextTokenizer):
        assert tokenizer.chat_template is not None
        where = f"{tokenizer.name}, chat template"
        self._named = tokenizer.named
        self._template = compile_template(tokenizer.chat_template, where)
        self._tool_template = self._template
        if tokenizer.tool_template is not None:
            self._tool_template = compile_template(tokenizer.tool_template, f"{where} for tools")
        stops = sorted({*tokenizer.special.values(), *tokenizer.named.values()} - {""}, key=len, reverse=True)
        any_stop = "|".join(map(re.escape, stops))
        self._stop = re.compile(any_stop) if stops else None
        self._stop_here = re.compile(rf"\s*(?:{any_stop})") if stops else None
        self._generation_prompt = self._find_generation_prompt()
        self._ending = self._find_ending()
        self._skeletons: dict[tuple[str, ...], Skeleton | None] = {}

    def render(self, conversation: Conversation) -> Rendered:
        """Raises Unusable when the template rejects the messages or leaves an answer out."""
        text = self._render(conversation)
        if not conversation.tools and not any(each.more for each in conversation.messages):
            skeleton = self._skeleton(conversation.messages)
            if skeleton is not None and (fit := skeleton.fit(text, conversation.messages)) is not None:
                return Rendered(fit.text, fit.answers, lacks_stop=fit.lacks_stop, altered=fit.altered)
        return self._render_alone(text, conversation)

    def _skeleton(self, messages: Sequence[Message]) -> Skeleton | None:
        roles = tuple(each.role for each in messages)
        if roles not in self._skeletons:
            if len(self._skeletons) >= _SKELETONS_KEPT:
                self._skeletons.clear()
            self._skeletons[roles] = self._make_skeleton(roles)
        return self._skeletons[roles]

    def _make_skeleton(self, roles: tuple[Role, ...]) -> Skeleton | None:
        marked = Conversation(tuple(Message(role, marker_of(at)) for at, role in enumerate(roles)))
        try:
            text = self._render(marked)
            return Skeleton.of(roles, text, self._render_alone(text, marked).answers)
        except Unusable:
            return None

    def _render_alone(self, text: str, conversation: Conversation) -> Rendered:
        messages = conversation.messages
        positions = [index for index, each in enumerate(messages) if each.role == "assistant"]
        answers: list[tuple[int, int]] = []
        lacks_stop = False
        for index, (begins, ends) in zip(positions, self._locate(text, conversation, positions), strict=True):
            begins = self._generation_start(text, _before(conversation, index), begins)
            if _calls(messages[index]):
                # What stands behind the call's text is the template's own writing up to the token that stops it.
                stop = self._stop.search(text, ends) if self._stop else None
            else:
                stop = self._stop_here.match(text, ends) if self._stop_here else None
            if stop:
                ends = stop.end()
            elif index == len(messages) - 1 and not text[ends:].strip():
                text, lacks_stop = text[:ends], messages[index].learnt
            else:
                ends = self._turn_end(text, _before(conversation, index + 1), ends)
            if messages[index].learnt:
                answers.append((begins, ends))
        altered = tuple(sorted({each.role for each in messages if each.content.strip() not in text}))
        warnings = (LEAVES_OUT_TOOLS,) if self._leaves_out_tools(text, conversation) else ()
        return Rendered(text, tuple(answers), lacks_stop=lacks_stop, altered=altered, warnings=warnings)

    def _find_generation_prompt(self) -> str:
        """What asks the model to answer, such as `<|im_start|>assistant` and a line end (or "")."""
        probe = Conversation(_PROBE)
        try:
            without, with_prompt = self._render(probe), self._render(probe, ask=True)
        except Unusable:
            return ""  # a template that wants more than a user turn; then each answer is asked for in its place
        return with_prompt.removeprefix(without) if with_prompt.startswith(without) else ""

    def _find_ending(self) -> str:
        """What ends the last answer, such as ` [END]` (or "")."""
        try:
            text = self._render(Conversation((*_PROBE, Message("assistant", marker_of(1)))))
        except Unusable:
            return ""
        return text.partition(marker_of(1))[2].rstrip()

    def _generation_start(self, text: str, before: Conversation, content_begins: int) -> int:
        prompt = self._generation_prompt
        if prompt and text.endswith(prompt, 0, content_begins):
            return content_begins
        # The template puts something of its own in front of the answer (an empty thought, a space), which the model
        # has to write itself when it is asked.
        asked = self._render(before, ask=True) if before.messages else ""
        if asked and text.startswith(asked) and len(asked) <= content_begins:
            return len(asked)
        at = text.rfind(prompt, 0, content_begins) if prompt else -1
        return content_begins if at < 0 else at + len(prompt)

    def _turn_end(self, text: str, until: Conversation, content_ends: int) -> int:
        # No special token ends the answer; some templates end it with plain text, which is learnt.
        until_here = self._render(until).rstrip()
        if text.startswith(until_here):
            return max(content_ends, len(until_here))
        # The template writes this answer otherwise where it is the last (with thoughts, say), yet ends it the same.
        return content_ends + len(self._ending) if text.startswith(self._ending, content_ends) else content_ends

    def _locate(self, text: str, conversation: Conversation, positions: Sequence[int]) -> list[tuple[int, int]]:
        """Where in `text` the content of each message at `positions` stands; of one that calls a tool, the call."""
        messages = conversation.messages
        marker = absent_from(text)
        if not any(_calls(messages[index]) for index in positions):
            parts = self._render(_marked(conversation, positions, marker)).split(marker)
            if len(parts) == len(positions) + 1:
                for contents in (
                    [messages[index].content for index in positions],
                    [messages[index].content.strip() for index in positions],
                ):
                    if (spans := _spans(parts, contents, text)) is not None:
                        return spans
        # The template changes some answers (strips thoughts from earlier turns, say): one at a time.
        return [self._locate_one(text, conversation, index, marker) for index in positions]

    def _locate_one(self, text: str, conversation: Conversation, index: int, marker: str) -> tuple[int, int]:
        message = conversation.messages[index]
        parts = self._render(_marked(conversation, (index,), marker)).split(marker)
        if len(parts) == 1 and _calls(message) and message.content:
            parts = self._render(_marked(conversation, (index,), marker, in_calls=False)).split(marker)
        if len(parts) != 2:
            found = "leaves out" if len(parts) == 1 else "repeats"
            if _calls(message):
                raise Unusable(
                    f"has a tool call, message {index + 1}, that the chat template {found}; "
                    "with data.chat_template chatml it is written"
                )
            raise Unusable(f"has an answer, message {index + 1}, that the chat template {found}")
        begins = _common_length(text, parts[0])
        after = _common_length(text[begins:][::-1], parts[1][::-1])
        return begins, len(text) - after

    def _leaves_out_tools(self, text: str, conversation: Conversation) -> bool:
        if conversation.tools and (offered := _tools(conversation.tools)):
            first = offered[0].get("function", offered[0]) if isinstance(offered[0], dict) else {}
            if str(first.get("name", "")) not in text:
                return True
        return any(
            str(_called(call).get("name", "")) not in text
            for message in conversation.messages
            for call in _calls(message)
        )

    def _render(self, conversation: Conversation, ask: bool = False) -> str:
        tools = _tools(conversation.tools)
        return render_limited(
            self._tool_template if tools else self._template,
            {
                **self._named,
                "messages": [_as_template_takes(message) for message in conversation.messages],
                "tools": tools,
                "documents": None,
                "add_generation_prompt": ask,
            },
            _WHERE,
        )


def _as_template_takes(message: Message) -> dict[str, Any]:
    if not message.more:
        return {"role": message.role, "content": message.content}
    fields = {name: value for name, value in message.as_dict().items() if value is not None}
    thoughts = next((fields[name] for name in _THOUGHTS if name in fields), None)
    return fields if thoughts is None else {"thinking": thoughts, **fields, "reasoning_content": thoughts}


def _before(conversation: Conversation, end: int) -> Conversation:
    return replace(conversation, messages=conversation.messages[:end])


@lru_cache(maxsize=64)
def _tools(text: str) -> list[Any] | None:
    return json.loads(text) if text else None


def _calls(message: Message) -> list[dict[str, Any]]:
    """The tool calls of an answer."""
    if not message.more or message.role != "assistant":
        return []
    calls = json.loads(message.more).get("tool_calls")
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def _called(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    return function if isinstance(function, dict) else call


def _marked(
    conversation: Conversation, positions: Sequence[int], marker: str, *, in_calls: bool = True
) -> Conversation:
    """With `marker` in place of the contents at `positions`, or, of one that calls tools, of the last one's name."""
    messages = list(conversation.messages)
    for index in positions:
        message = messages[index]
        if in_calls and (calls := _calls(message)):
            calls[-1] = json.loads(json.dumps(calls[-1]))
            _called(calls[-1])["name"] = marker
            more = json.dumps({**json.loads(message.more), "tool_calls": calls})
            messages[index] = replace(message, more=more)
        else:
            messages[index] = replace(message, content=marker)
    return replace(conversation, messages=tuple(messages))


def _common_length(first: str, second: str) -> int:
    """How many characters two texts have in common from their start."""
    low, high = 0, min(len(first), len(second))
    while low < high:  # by halves, since comparing slices is far quicker than characters
        middle = (low + high + 1) // 2
        if first.startswith(second[low:middle], low):
            low = middle
        else:
            high = middle - 1
    return low


def _spans(parts: Sequence[str], contents: Sequence[str], text: str) -> list[tuple[int, int]] | None:
    """Where `contents` stand when they are put between `parts`, provided that this gives `text`."""
    spans, at = [], len(parts[0])
    pieces = [parts[0]]
    for content, part in zip(contents, parts[1:], strict=True):
        spans.append((at, at + len(content)))
        at += len(content) + len(part)
        pieces += [content, part]
    return spans if at == len(text) and "".join(pieces) == text else None
