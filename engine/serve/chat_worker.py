"""The child process that answers as base and tuned: `python -m engine.serve.chat_worker RUN_PATH`.

One JSON object a line. On stdin:
  {"kind": "ask", "id", "messages": {side: [{"role", "content"}]}, "max_new_tokens", "temperature", "seed"}
  {"kind": "cancel", "id"}      ends the answers to that ask, and to all before it
On stdout:
  {"kind": "loading", "detail"}
  {"kind": "ready", "device", "dtype", "reasons", "context_tokens", "has_template"}
  {"kind": "chunk", "id", "side", "text", "done", "tokens", "tokens_per_second", "ending"}
  {"kind": "refused", "id", "where", "what", "fix"}     this ask only; the worker goes on
  {"kind": "problem", "where", "what", "fix"}           nothing can be answered; status 2 follows
Ids rise. Every side of an ask that was not refused gets exactly one chunk with `done`, whose `ending` is
stop, length, context or cancelled. The process ends when stdin does, so it never outlives the one that talks
with it.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from engine.child_process import Send, take_stdout
from engine.offline import set_offline
from engine.run.directory import RunDirectory
from engine.run.sealing.telling import tell_tries
from engine.swift_imports import swift_imports
from profiles.problem import Problem

if TYPE_CHECKING:
    from engine.serve.sides import LoadedRun, Side

# A switch between the sides costs up to a token's time (peft touches every layer), and a screen shows no more
# than eight changes a second: so each side computes for about this long before it is the other's turn.
TURN_SECONDS = 0.1


def main(arguments: list[str]) -> int:
    """Serve until stdin ends. Returns 2 after a Problem that leaves nothing to serve."""
    set_offline()
    send = take_stdout()
    tell_tries()
    requests = Requests(sys.stdin)
    try:
        loaded = _load(RunDirectory(Path(arguments[0])), send)
    except Problem as problem:
        send("problem", **problem.as_dict())
        return 2
    while True:
        ask = requests.next_ask()
        try:
            _answer(loaded, ask, send, partial(requests.is_cancelled, ask["id"]))
        except Problem as problem:
            send("refused", id=ask["id"], **problem.as_dict())


class Requests:
    """What arrives on stdin, read in a thread so that a cancel is heard in the middle of an answer."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._asks: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._cancelled_up_to = -1
        threading.Thread(target=self._read, daemon=True, name="requests").start()

    def next_ask(self) -> dict[str, Any]:
        """The next question; waits for it."""
        return self._asks.get()

    def is_cancelled(self, number: int) -> bool:
        """Whether the ask with that id is no longer wanted."""
        return number <= self._cancelled_up_to

    def _read(self) -> None:
        status = 1
        try:
            for line in self._stream:
                request = json.loads(line)
                if request["kind"] == "cancel":
                    self._cancelled_up_to = request["id"]
                else:
                    self._asks.put(request)
            status = 0
        finally:
            # Nobody listens any more. There is nothing to save, and the main thread may be deep in a
            # computation.
            sys.stderr.flush()
            os._exit(status)


def _load(run: RunDirectory, send: Send) -> LoadedRun:
    send("loading", detail="starting")
    with swift_imports():
        import torch

        from engine.serve.sides import load_sides

    try:
        loaded = load_sides(run, lambda detail: send("loading", detail=detail))
    except torch.OutOfMemoryError as error:
        raise _out_of_memory() from error
    tuned = loaded.sides["tuned"]
    send(
        "ready",
        device=loaded.device.kind,
        dtype=loaded.dtype,
        reasons=list(loaded.device.reasons),
        context_tokens=tuned.context_tokens,
        has_template=tuned.tokenizer.chat_template is not None,
    )
    return loaded


def _answer(loaded: LoadedRun, ask: dict[str, Any], send: Send, is_cancelled: Callable[[], bool]) -> None:
    """Stream all sides' answers to `ask`. Raises Problem before anything is computed, or out of memory."""
    import torch

    sides = [loaded.sides[name] for name in ask["messages"]]
    try:
        with torch.inference_mode():
            # All prompts are checked before any is read, so that an ask is refused whole or answered whole.
            prompts = [_prompt(side, ask["messages"][side.name]) for side in sides]
            waiting = [_Stream(side, prompt, ask) for side, prompt in zip(sides, prompts, strict=True)]
            while waiting:
                for stream in list(waiting):
                    ending = stream.turn(send, is_cancelled)
                    if ending:
                        waiting.remove(stream)
    except torch.OutOfMemoryError as error:
        for side in loaded.sides.values():
            side.reader.forget()
        torch.cuda.empty_cache()
        raise _out_of_memory() from error


class _Stream:
    """One side's answer on its way out."""

    def __init__(self, side: Side, prompt: list[int], ask: dict[str, Any]):
        from engine.serve.decoding import Answer, Sampler
        from engine.serve.text_stream import TextStream

        self._side, self._number = side, ask["id"]
        sampler = Sampler(side.generation_config, ask["temperature"], ask["seed"], side.reader.device)
        self._answer = Answer(side.reader, sampler, prompt, side.stops, ask["max_new_tokens"], side.context_tokens)
        self._text = TextStream(side.tokenizer)

    def turn(self, send: Send, is_cancelled: Callable[[], bool]) -> str | None:
        """Compute and send for TURN_SECONDS, or up to the first token. Returns the ending, if it came."""
        self._side.select()
        answer, text, ending = self._answer, "", None
        until = time.monotonic() + TURN_SECONDS
        while ending is None:
            if is_cancelled():
                ending = "cancelled"
                break
            token = answer.advance()
            if token is not None:
                text += self._text.add(token)
            ending = answer.ending
            if answer.new_tokens == 1 or time.monotonic() >= until:
                break
        if ending:
            text += self._text.finish()
        if text or ending:
            send(
                "chunk",
                id=self._number,
                side=self._side.name,
                text=text,
                done=ending is not None,
                tokens=answer.new_tokens,
                tokens_per_second=answer.tokens_per_second,
                ending=ending,
            )
        return ending


def _prompt(side: Side, messages: list[dict[str, str]]) -> list[int]:
    from engine.serve.prompts import encode_conversation

    prompt = encode_conversation(side.tokenizer, messages, side.learned_pairs)
    if not prompt:
        raise Problem(f"the conversation with {side.name}", "is empty", "Write a message.")
    if side.context_tokens is not None and len(prompt) >= side.context_tokens:
        raise Problem(
            f"the conversation with {side.name}",
            f"is {len(prompt):,} tokens, and the model reads at most {side.context_tokens:,}",
            "Start a new conversation, or shorten the message.",
        )
    return prompt


def _out_of_memory() -> Problem:
    return Problem(
        "the GPU",
        "has too little free memory for this chat",
        "Wait for other work to end, or shorten the conversation.",
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
