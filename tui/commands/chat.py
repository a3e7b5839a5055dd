"""`finetui chat RUN`: ask the base and the tuned model the same, one answer after the other."""

from __future__ import annotations

import argparse
import sys

from engine.run.directory import find_run
from engine.serve.session import SIDES, ChatSession, Message, SideName
from profiles.problem import Problem
from tui.commands import status
from tui.commands.output import Output
from tui.commands.show import add_run_argument
from tui.format import rate_text

_REPL_HELP = "Ctrl-C ends an answer, /new forgets the conversation, /quit or Ctrl-D leaves."
_ENDINGS = {
    "length": "cut at --max-new-tokens",
    "context": "the model's context is full",
    "cancelled": "cut short",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_argument(parser)
    parser.add_argument("--once", metavar="TEXT", help='answer this and exit; "-" reads standard input')
    parser.add_argument("--side", choices=("both", *SIDES), default="both", help="who answers (both)")
    parser.add_argument("--system", metavar="TEXT", help="a system message to begin with")
    parser.add_argument("--max-new-tokens", type=int, default=512, metavar="N", help="longest answer (512)")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0, the default: greedy")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="for temperatures above 0 (0)")
    parser.add_argument("--json", action="store_true", help="with --once: print the answers as JSON")


def run(arguments: argparse.Namespace, output: Output) -> int:
    question = _question(arguments)
    found = find_run(arguments.run)
    with ChatSession(found) as session:
        session.start(lambda detail: output.status(f"{detail} …") if output.live else None)
        output.clear_status()
        talk = _Talk(session, arguments, output)
        if question is None:
            talk.converse()
        elif arguments.json:
            output.json({"run": found.name, "question": question, **talk.answers(question)})
        else:
            talk.ask(question)
    return status.DONE


def _question(arguments: argparse.Namespace) -> str | None:
    """The one question, None for a conversation. Raises Problem for options that cannot be."""
    if arguments.max_new_tokens < 1:
        raise Problem("--max-new-tokens", f"is {arguments.max_new_tokens}", "Give a number above 0.")
    if not 0 <= arguments.temperature <= 10:
        raise Problem("--temperature", f"is {arguments.temperature}", "Give a number from 0 to 10.")
    if arguments.json and arguments.once is None:
        raise Problem("--json", "needs a question", 'Add --once "your question".')
    question = sys.stdin.read() if arguments.once == "-" else arguments.once
    if question is not None and not question.strip():
        raise Problem("--once", "there is no question", "Give some text.")
    return question


class _Talk:
    """A conversation with each side; each remembers its own earlier answers."""

    def __init__(self, session: ChatSession, arguments: argparse.Namespace, output: Output):
        self._session, self._output = session, output
        self._system = arguments.system
        self._limits = (arguments.max_new_tokens, arguments.temperature, arguments.seed)
        self._sides: tuple[SideName, ...] = SIDES if arguments.side == "both" else (arguments.side,)
        self._messages: dict[SideName, list[Message]] = self._opening()

    def converse(self) -> None:
        """Read questions until they end; on a terminal with a prompt."""
        interactive = sys.stdin.isatty()
        if interactive:
            self._output.line(_REPL_HELP)
        while True:
            try:
                question = input("you> " if interactive else "")
            except EOFError:
                self._output.line()
                return
            match question.strip():
                case "":
                    continue
                case "/quit":
                    return
                case "/new":
                    self._messages = self._opening()
                    self._output.line("A new conversation.")
                case _:
                    self._ask_interruptibly(question)

    def ask(self, question: str) -> None:
        """Print each side's answer as it comes, one side after the other."""
        for side in self._sides:
            self._messages[side].append({"role": "user", "content": question})
            self._output.line(f"{side}:")
            answer, speed, ending, tried = "", None, None, ""
            for chunk in self._session.ask({side: self._messages[side]}, *self._limits):
                answer += chunk.text
                speed, ending, tried = chunk.tokens_per_second or speed, chunk.ending, chunk.tried
                self._output.text(chunk.text)
            self._output.line()
            remarks = [_ENDINGS[ending]] if ending in _ENDINGS else []
            remarks += [rate_text(speed)] if self._output.live and speed is not None else []
            if tried:
                self._output.warn(tried)
            if remarks:
                self._output.line(f"({', '.join(remarks)})")
            self._output.line()
            self._messages[side].append({"role": "assistant", "content": answer})

    def answers(self, question: str) -> dict[str, dict[str, str | None]]:
        """Each side's whole answer and how it ended (stop, length, context)."""
        messages = {side: [*self._messages[side], {"role": "user", "content": question}] for side in self._sides}
        texts: dict[SideName, str] = dict.fromkeys(self._sides, "")
        endings: dict[SideName, str | None] = {}
        for chunk in self._session.ask(messages, *self._limits):
            texts[chunk.side] += chunk.text
            endings[chunk.side] = chunk.ending
            if chunk.tried:
                self._output.warn(chunk.tried)
        return {side: {"text": texts[side], "ending": endings[side]} for side in self._sides}

    def _ask_interruptibly(self, question: str) -> None:
        said = {side: list(messages) for side, messages in self._messages.items()}
        try:
            self.ask(question)
        except KeyboardInterrupt:
            self._session.cancel()
            self._messages = said
            self._output.line()
            self._output.line("(cut short; this question is forgotten)")
        except Problem as problem:
            if not sys.stdin.isatty():
                raise
            # Too long a question or one that the template refuses leaves the session as it was.
            self._messages = said
            self._output.line()
            self._output.problem(problem)

    def _opening(self) -> dict[SideName, list[Message]]:
        opening: list[Message] = [{"role": "system", "content": self._system}] if self._system else []
        return {side: list(opening) for side in self._sides}
