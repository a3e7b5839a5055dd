"""A chat with a run's base and tuned model, from a process that never imports torch."""

from __future__ import annotations

import json
import queue
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import IO, Any, Literal

from engine.child_process import describe_exit, last_line
from engine.export.output import output_of
from engine.modules import module_command
from engine.run.directory import RunDirectory
from engine.run.evidence.audit import record, seal_facts
from engine.run.sealing.hearing import Hearing
from engine.run.sealing.level import level_now
from engine.run.sealing.places import chat_places
from engine.seal.report import SealReport
from profiles.machine.kernel import require_kernel
from profiles.problem import Problem, printable

SideName = Literal["base", "tuned"]
Ending = Literal["stop", "length", "context", "cancelled"]
Message = Mapping[str, str]

SIDES: tuple[SideName, ...] = ("base", "tuned")
Inbox = queue.SimpleQueue[dict[str, Any] | None]  # None: no more will come

LOG_NAME = "chat.log"
STARTING = -1  # in the place of a question's number
ROLES = ("system", "user", "assistant")
# A worker ends within milliseconds of its stdin; one that hangs in a driver is not waited for.
CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of one side's answer. The last one of a side has `done` and says in `ending` why it ended:

    stop: the model ended its answer; length: `max_new_tokens` reached; context: the model reads no further;
    cancelled. `tokens_per_second` is that side's own pace after its first token; None before its second. A last one has
    in `tried` what tried to get out of the worker's seal since that was last told, as a sentence.
    """

    side: SideName
    text: str
    done: bool
    tokens_per_second: float | None
    tokens: int = 0
    ending: Ending | None = None
    tried: str = ""


@dataclass(frozen=True, slots=True)
class ChatModel:
    """What answers: device ("cuda" or "cpu"), dtype of the products, why, and how many tokens a conversation
    may have.

    Without a chat template (`has_template` False) the messages are continued as plain text.
    """

    device: str
    dtype: str
    reasons: tuple[str, ...]
    context_tokens: int | None
    has_template: bool


class ChatSession:
    """One chat worker and the talk with it. `start`, then `ask` as often as wanted, then `close`.

    `start` and the iterator from `ask` block, so call them in a thread; `cancel` and `close` may come from
    any other.
    """

    def __init__(self, run: RunDirectory):
        self.run = run
        self.model: ChatModel | None = None
        self.seal: SealReport | None = None
        self._process: subprocess.Popen[str] | None = None
        self._hearing: Hearing | None = None
        self._log: IO[bytes] | None = None
        self._log_start = 0
        self._receiver: threading.Thread | None = None
        # One for each question being answered, since an older one may still be read in another thread.
        self._inboxes: dict[int, Inbox] = {STARTING: queue.SimpleQueue()}
        self._death: Problem | None = None
        # Held over the worker's start, so that a `close` meanwhile finds all of the worker, or keeps it from starting.
        self._starting = threading.Lock()
        self._changing = threading.Lock()
        self._writing = threading.Lock()
        self._last_ask = -1
        self._closed = False

    def __enter__(self) -> ChatSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, progress: Callable[[str], None] = lambda detail: None) -> ChatModel:
        """Load both sides, which takes seconds to minutes; `progress` gets what is being done, in words.

        The worker is sealed as the run is (privacy.seal, or what a person set since); `seal` tells what holds. Raises
        Problem when the run has no result, a model cannot be loaded, a layer that is required is missing, or the worker
        dies.
        """
        assert self._process is None, "a session is started once"
        require_kernel()
        spec = self.run.spec()
        if not (objective := spec.objective).writes:
            raise Problem(
                f"run {self.run.name}",
                f"learnt {objective.kind}, so its model does not write answers",
                "Export it, and use it as the README.md beside it shows.",
            )
        output_of(self.run)
        with self._starting:
            if self._closed:
                raise _was_closed()
            self._start_worker()
        while True:
            message = self._inboxes[STARTING].get()
            if message is None:
                raise self._ended()
            match message["kind"]:
                case "loading":
                    progress(message["detail"])
                case "problem":
                    raise _problem(message)
                case "ready":
                    del message["kind"]
                    self.model = ChatModel(**(message | {"reasons": tuple(message["reasons"])}))
                    return self.model

    def _start_worker(self) -> None:
        self._log = self._open_log()
        self._log_start = self._log.seek(0, 2)
        self._hearing = Hearing()
        self._process, self.seal = self._hearing.start(
            module_command("engine.serve.chat_worker", str(self.run.path)),
            chat_places(self.run),
            level_now(self.run),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
            encoding="ascii",
        )
        with suppress(OSError):  # the folder of a run may have become read-only; talking with it still works
            record(self.run, "chatted", seal=seal_facts(self.seal))
        self._receiver = threading.Thread(target=self._receive, daemon=True, name="chat")
        self._receiver.start()

    def ask(
        self,
        messages_by_side: Mapping[SideName, Sequence[Message]],
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[Chunk]:
        """The answers to a conversation for one side or both, in pieces as they come; every side ends once.

        The question is sent at once, and whatever an earlier ask was still answering ends. A `temperature` of
        0 is greedy; above it, the same `seed` gives the same text. Raises Problem, here or while iterating,
        for a conversation that the model cannot take (too long, refused by its template) and when the worker
        dies.
        """
        assert self.model is not None, "start() first"
        assert messages_by_side and set(messages_by_side) <= set(SIDES), messages_by_side
        assert max_new_tokens >= 1 and temperature >= 0, (max_new_tokens, temperature)
        messages = {side: [_checked(message) for message in talk] for side, talk in messages_by_side.items()}
        self.cancel()
        with self._changing:
            self._last_ask += 1
            number, inbox = self._last_ask, Inbox()
            self._inboxes[number] = inbox
        sent = self._send(
            kind="ask",
            id=number,
            messages=messages,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
        )
        if not sent:
            raise self._ended()
        return self._chunks(number, inbox, set(messages))

    def cancel(self) -> None:
        """End the answers being given; their iterator still yields a last chunk for each side."""
        if self._last_ask >= 0:
            self._send(kind="cancel", id=self._last_ask)

    def close(self) -> None:
        """End the worker and free its memory. An iterator in another thread ends. May be called twice."""
        with self._starting:
            if self._closed:
                return
            self._closed = True
        process, receiver = self._process, self._receiver
        if process is not None and receiver is not None:
            assert process.stdin is not None
            with self._writing:
                _close_pipe(process.stdin)
            try:
                process.wait(CLOSE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
            receiver.join()
        if self._log is not None:
            self._log.close()
        if self._hearing is not None:
            self._hearing.close()
            if self._hearing.count:
                with suppress(OSError):  # as when it was opened
                    record(self.run, "way_out", during="chat", **self._hearing.facts())

    def tried(self) -> str:
        """What tried to get out of the worker's seal since this was last told, as a sentence; empty where nothing
        did."""
        return self._hearing.news() if self._hearing is not None else ""

    def _chunks(self, number: int, inbox: Inbox, left: set[SideName]) -> Iterator[Chunk]:
        try:
            while left:
                message = inbox.get()
                if self._closed:  # whatever had come before that was not read yet
                    return
                if message is None:
                    raise self._ended()
                del message["kind"], message["id"]
                if "fix" in message:
                    raise _problem(message)
                chunk = Chunk(**message)
                if chunk.done:
                    left.discard(chunk.side)
                    chunk = replace(chunk, tried=self.tried())
                yield chunk
        except GeneratorExit:
            self._send(kind="cancel", id=number)  # the rest is not wanted any more
            raise
        finally:
            with self._changing:
                del self._inboxes[number]

    def _receive(self) -> None:
        """Sort the worker's messages to whom they answer, until it ends; then tell them all."""
        process, log = self._process, self._log
        assert process is not None and process.stdout is not None and log is not None
        with process.stdout as lines:
            for line in lines:
                if not line.endswith("\n"):
                    break  # a killed worker's last line
                message = json.loads(line)
                inbox = self._inboxes.get(message.get("id", STARTING))
                if inbox is not None:  # else an answer that nobody reads any more
                    inbox.put(message)
        what = f"its process {describe_exit(process.wait())}"
        if words := last_line(log, self._log_start):
            what += f"; its last words: {words}"
        self._death = Problem("the chat", what, f"Open it again; the whole log is {self.run.path / LOG_NAME}.")
        with self._changing:
            for inbox in self._inboxes.values():
                inbox.put(None)

    def _ended(self) -> Problem:
        """What is told when an answer is waited for and the worker is no more."""
        assert self._receiver is not None
        self._receiver.join()
        assert self._death is not None
        return _was_closed() if self._closed else self._death

    def _send(self, **fields: Any) -> bool:
        """Whether the worker was there to be sent something."""
        assert self._process is not None and self._process.stdin is not None
        with self._writing:
            if self._closed:
                return False
            try:
                self._process.stdin.write(json.dumps(fields) + "\n")
                self._process.stdin.flush()
            except BrokenPipeError:
                return False
        return True

    def _open_log(self) -> IO[bytes]:
        try:
            return (self.run.path / LOG_NAME).open("ab+")
        except OSError:  # the folder of a run may have become read-only; talking with it still works
            return tempfile.TemporaryFile()


def _checked(message: Message) -> dict[str, str]:
    role, content = message["role"], message["content"]
    assert role in ROLES, role
    try:
        content.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Problem(
            "the message",
            f"character {error.start + 1:,} is half a character ({printable(content[error.start])})",
            "Remove it; it was probably cut while copying.",
        ) from None
    return {"role": role, "content": content}


def _problem(message: Mapping[str, Any]) -> Problem:
    return Problem(message["where"], message["what"], message["fix"])


def _was_closed() -> Problem:
    return Problem("the chat", "was closed", "Open it again.")


def _close_pipe(pipe: IO[str]) -> None:
    try:
        pipe.close()
    except BrokenPipeError:
        return  # it died before us; whatever was still buffered has no reader
