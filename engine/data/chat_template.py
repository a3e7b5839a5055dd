"""Where the answers lie in a conversation rendered with a model's own chat template.

The template is a program, so nothing is assumed of its looks. An answer's text is found by rendering the
conversation once more with a marker in the answer's place; the answer then begins where the template's
generation prompt ends, which is where the model takes over when it is asked, and ends with the stop token
that follows its text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import jinja2

from engine.data.contents import Message, Role, Unusable
from profiles.problem import Problem, printable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = (Message("user", "x"),)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A row as the text that is tokenised."""

    text: str
    answers: tuple[tuple[int, int], ...]
    """For each answer that may be learnt, in order, where it begins and ends in `text`, in characters; with
    its stop token and without white space after that."""
    lacks_start: bool = False
    """No template wrote the text, so what the tokenizer puts in front of text is still missing."""
    lacks_stop: bool = False
    """Nothing in the text ends the last answer, so the end-of-text token must be put behind it."""
    altered: tuple[Role, ...] = ()
    """Roles of messages whose text the template left out or changed."""


class ChatTemplate:
    """The chat template of a tokenizer that has one. Raises Problem when the template is not valid Jinja."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._tokenizer = tokenizer
        added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
        stops = {*tokenizer.all_special_tokens, *added} - {""}
        longest_first = sorted(stops, key=len, reverse=True)
        self._stop = re.compile(r"\s*(?:" + "|".join(map(re.escape, longest_first)) + ")") if stops else None
        self._generation_prompt = self._find_generation_prompt()

    def render(self, messages: Sequence[Message]) -> Rendered:
        """Raises Unusable when the template rejects the messages or leaves an answer out."""
        text = self._render(messages)
        positions = [index for index, each in enumerate(messages) if each.role == "assistant"]
        answers: list[tuple[int, int]] = []
        lacks_stop = False
        for index, (begins, ends) in zip(positions, self._locate(text, messages, positions), strict=True):
            begins = self._generation_start(text, messages[:index], begins)
            if self._stop and (stop := self._stop.match(text, ends)):
                ends = stop.end()
            elif index == len(messages) - 1 and not text[ends:].strip():
                text, lacks_stop = text[:ends], messages[index].learnt
            else:
                ends = self._turn_end(text, messages[: index + 1], ends)
            if messages[index].learnt:
                answers.append((begins, ends))
        altered = {each.role for each in messages if each.content.strip() not in text}
        return Rendered(text, tuple(answers), lacks_stop=lacks_stop, altered=tuple(sorted(altered)))

    def _find_generation_prompt(self) -> str:
        """What asks the model to answer, such as `<|im_start|>assistant` and a line end (or "")."""
        try:
            without, with_prompt = self._render(_PROBE), self._render(_PROBE, ask=True)
        except Unusable:
            return ""  # a template that wants more than a user turn; then each answer is asked for in its place
        return with_prompt.removeprefix(without) if with_prompt.startswith(without) else ""

    def _generation_start(self, text: str, before: Sequence[Message], content_begins: int) -> int:
        prompt = self._generation_prompt
        if prompt and text.endswith(prompt, 0, content_begins):
            return content_begins
        # The template puts something of its own in front of the answer (an empty thought, a space), which
        # the model has to write itself when it is asked.
        asked = self._render(before, ask=True) if before else ""
        if asked and text.startswith(asked) and len(asked) <= content_begins:
            return len(asked)
        at = text.rfind(prompt, 0, content_begins) if prompt else -1
        return content_begins if at < 0 else at + len(prompt)

    def _turn_end(self, text: str, turns: Sequence[Message], content_ends: int) -> int:
        # No special token ends the answer; some templates end it with plain text, which is learnt.
        until_here = self._render(turns).rstrip()
        return max(content_ends, len(until_here)) if text.startswith(until_here) else content_ends

    def _locate(self, text: str, messages: Sequence[Message], positions: Sequence[int]) -> list[tuple[int, int]]:
        """Where in `text` the content of each message at `positions` stands."""
        marker = _absent_from(text)
        parts = self._render(_marked(messages, positions, marker)).split(marker)
        if len(parts) == len(positions) + 1:
            for contents in (
                [messages[index].content for index in positions],
                [messages[index].content.strip() for index in positions],
            ):
                if (spans := _spans(parts, contents, text)) is not None:
                    return spans
        # The template changes some answers (strips thoughts from earlier turns, say): one at a time.
        return [self._locate_one(text, messages, index, marker) for index in positions]

    def _locate_one(self, text: str, messages: Sequence[Message], index: int, marker: str) -> tuple[int, int]:
        parts = self._render(_marked(messages, (index,), marker)).split(marker)
        if len(parts) != 2:
            where = "leaves out" if len(parts) == 1 else "repeats"
            raise Unusable(f"has an answer, message {index + 1}, that the chat template {where}")
        begins = _common_length(text, parts[0])
        after = _common_length(text[begins:][::-1], parts[1][::-1])
        return begins, len(text) - after

    def _render(self, messages: Sequence[Message], ask: bool = False) -> str:
        try:
            text = self._tokenizer.apply_chat_template(
                [message.as_dict() for message in messages], tokenize=False, add_generation_prompt=ask
            )
        except jinja2.TemplateSyntaxError as error:
            raise Problem(
                f"{self._tokenizer.name_or_path}, chat template, line {error.lineno}",
                f"is not valid Jinja: {printable(error.message or '')}",
                "Correct the template, or copy the one of the model this one was made from.",
            ) from None
        except jinja2.TemplateError as error:
            raise Unusable(f"is rejected by the chat template: {printable(error.message or '', 160)}") from None
        except Exception as error:
            # A template is a program that came with the model: whatever it raises is its fault or the row's.
            said = f"{type(error).__name__}: {error}"
            raise Unusable(f"makes the chat template fail: {printable(said, 160)}") from None
        return text


def _marked(messages: Sequence[Message], positions: Sequence[int], marker: str) -> list[Message]:
    return [replace(each, content=marker) if index in positions else each for index, each in enumerate(messages)]


def _absent_from(text: str) -> str:
    number = 0
    while (marker := f"answerstandshere{number}answerstandshere") in text:
        number += 1
    return marker


def _common_length(first: str, second: str) -> int:
    """How many characters two texts have in common from their start."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(first), len(second)))


def _spans(parts: Sequence[str], contents: Sequence[str], text: str) -> list[tuple[int, int]] | None:
    """Where `contents` stand when they are put between `parts`, provided that this gives `text`."""
    spans, at = [], len(parts[0])
    pieces = [parts[0]]
    for content, part in zip(contents, parts[1:], strict=True):
        spans.append((at, at + len(content)))
        at += len(content) + len(part)
        pieces += [content, part]
    return spans if at == len(text) and "".join(pieces) == text else None
