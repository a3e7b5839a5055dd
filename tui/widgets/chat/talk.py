"""What was said so far, by side: each model sees its own earlier answers. No widgets here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from profiles.problem import Problem, printable

if TYPE_CHECKING:
    from engine.serve.session import Chunk, SideName

SIDES: tuple[SideName, ...] = ("base", "tuned")
Choice = tuple["SideName", ...]
CHOICES: tuple[Choice, ...] = (("base", "tuned"), ("tuned",), ("base",))
MOST_NEW_TOKENS, HIGHEST_TEMPERATURE = 32768, 5.0


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are made. A temperature of 0 always takes the likeliest token."""

    temperature: float = 0.0
    max_new_tokens: int = 512

    @classmethod
    def parse(cls, temperature: str, max_new_tokens: str) -> Sampling:
        """From what was typed. Raises Problem."""
        try:
            heat = float(temperature)
        except ValueError:
            heat = -1.0
        if not 0 <= heat <= HIGHEST_TEMPERATURE:
            what = f"is {printable(repr(temperature.strip()))}"
            raise Problem("temperature", what, f"Type a number from 0 to {HIGHEST_TEMPERATURE:g}.")
        try:
            tokens = int(max_new_tokens.replace(",", ""))
        except ValueError:
            tokens = 0
        if not 1 <= tokens <= MOST_NEW_TOKENS:
            what = f"is {printable(repr(max_new_tokens.strip()))}"
            raise Problem("longest answer", what, f"Type a whole number from 1 to {MOST_NEW_TOKENS:,}.")
        return cls(heat, tokens)


@dataclass
class Talk:
    """The messages of each side, and the answers that are being given."""

    messages: dict[SideName, list[dict[str, str]]] = field(default_factory=lambda: {side: [] for side in SIDES})
    answers: dict[SideName, str] = field(default_factory=dict)
    expected: str | None = None
    """The answer that a held-out row has, while one was asked."""

    def forget(self) -> None:
        self.messages = {side: [] for side in SIDES}
        self.answers, self.expected = {}, None

    def ask(self, sides: Sequence[SideName], said: Sequence[Mapping[str, str]]) -> dict[SideName, list[dict[str, str]]]:
        """Add what a person said and return what is to be sent, by side."""
        for side in sides:
            self.messages[side] += [dict(message) for message in said]
        self.answers = dict.fromkeys(sides, "")
        return {side: list(self.messages[side]) for side in sides}

    def hear(self, chunk: Chunk) -> None:
        """Take in a piece of an answer; a finished one becomes part of the conversation."""
        self.answers[chunk.side] += chunk.text
        if chunk.done:
            answer = self.answers.pop(chunk.side)
            if answer.strip():
                self.messages[chunk.side].append({"role": "assistant", "content": answer})
            else:
                self._unsay(chunk.side)

    def give_up(self) -> None:
        """Forget questions that got no whole answer, since a template may refuse two questions in a row."""
        for side in list(self.answers):
            del self.answers[side]
            self._unsay(side)

    def is_as_expected(self, side: SideName) -> bool | None:
        """Whether the side's last answer is the held-out row's; None when there is nothing to compare."""
        last = self.messages[side][-1] if self.messages[side] else None
        if self.expected is None or last is None or last["role"] != "assistant":
            return None
        return last["content"].strip() == self.expected.strip()

    def _unsay(self, side: SideName) -> None:
        talk = self.messages[side]
        while talk and talk[-1]["role"] != "assistant":
            talk.pop()
