"""One answer of one model, token by token, over a KV cache that the next turn of the talk takes up."""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    DynamicCache,
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.cache_utils import DynamicLayer

# Long prompts are read in pieces: attention needs less memory at once, and a cancel is heard between them.
PROMPT_PIECE_TOKENS = 512


class CachedReader:
    """A model and the keys and values of what it read last, so that a longer talk is not read again."""

    def __init__(self, model: Any):
        self._model = model
        self._takes_logits_to_keep = "logits_to_keep" in inspect.signature(_innermost(model).forward).parameters
        self.forget()

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self._model.device

    def forget(self) -> None:
        """Drop the cache and its memory."""
        self._read: list[int] = []
        self._cache = DynamicCache(config=_innermost(self._model).config)

    def rewind_to_prefix_of(self, tokens: Sequence[int]) -> int:
        """Keep of the cache what `tokens` begins with; returns how many, always fewer than all of them."""
        common = 0
        for ours, theirs in zip(self._read, tokens[:-1], strict=False):
            if ours != theirs:
                break
            common += 1
        if common < len(self._read):
            # Only plain attention layers can be cut back; sliding windows have already lost what would be
            # needed.
            if common and all(type(layer) is DynamicLayer for layer in self._cache.layers):
                self._cache.crop(common - len(self._read))
                del self._read[common:]
            else:
                self.forget()
                common = 0
        return common

    def read(self, tokens: Sequence[int]) -> torch.Tensor:
        """Logits, float32 and of shape (1, vocabulary), of what follows all that was read and `tokens`."""
        ids = torch.tensor([list(tokens)], device=self.device)
        options = {"logits_to_keep": 1} if self._takes_logits_to_keep else {}
        output = self._model(input_ids=ids, past_key_values=self._cache, use_cache=True, **options)
        self._read.extend(tokens)
        return output.logits[:, -1].float()


class Sampler:
    """Chooses the next token: the likeliest at temperature 0, else drawn with a generator of its own.

    The model's generation_config is heeded as `generate` heeds it: the repetition penalty always, and top-k,
    top-p and min-p when drawing.
    """

    def __init__(self, generation_config: Any, temperature: float, seed: int, device: torch.device):
        self._greedy = temperature == 0
        self._processors = _processors(generation_config, temperature)
        self._generator = torch.Generator(device=device).manual_seed(seed)

    def choose(self, tokens: Sequence[int], logits: torch.Tensor) -> int:
        """The id that follows `tokens`, prompt included."""
        if self._processors:
            logits = self._processors(torch.tensor([list(tokens)], device=logits.device), logits)
        if self._greedy:
            return int(logits.argmax())
        return int(torch.multinomial(logits.softmax(dim=-1), 1, generator=self._generator))


class Answer:
    """The tokens of one answer, produced a turn at a time so that several answers can share a device.

    `ending` says why it ended: "stop" (the model's own end), "length" (`max_new_tokens`) or "context" (the
    model reads no further); None while it goes on. `seconds` is this answer's own computing time after its
    prompt.
    """

    def __init__(
        self,
        reader: CachedReader,
        sampler: Sampler,
        prompt: Sequence[int],
        stops: frozenset[int],
        max_new_tokens: int,
        context_tokens: int | None,
    ):
        self._reader, self._sampler, self._stops = reader, sampler, stops
        self._tokens = list(prompt)
        self._prompt_tokens = len(prompt)
        room = max_new_tokens if context_tokens is None else min(max_new_tokens, context_tokens - len(prompt))
        self._room, self._room_ends = room, "length" if room == max_new_tokens else "context"
        self._unread = len(prompt) - reader.rewind_to_prefix_of(prompt)
        self.ending: str | None = None
        self.seconds = 0.0

    @property
    def new_tokens(self) -> int:
        """Tokens answered so far, without the one that ended it."""
        return len(self._tokens) - self._prompt_tokens

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens per second of this answer's own time after its first token; None before a second one."""
        return (self.new_tokens - 1) / self.seconds if self.new_tokens > 1 and self.seconds else None

    def advance(self) -> int | None:
        """The next token; None when only a piece of the prompt was read, or the model ended its answer."""
        assert self.ending is None
        if self._unread > PROMPT_PIECE_TOKENS:
            start = len(self._tokens) - self._unread
            self._reader.read(self._tokens[start : start + PROMPT_PIECE_TOKENS])
            self._unread -= PROMPT_PIECE_TOKENS
            return None
        started = time.perf_counter()
        token = self._sampler.choose(self._tokens, self._reader.read(self._tokens[-self._unread :]))
        self._unread = 1
        if self.new_tokens:
            self.seconds += time.perf_counter() - started
        if token in self._stops:
            self.ending = "stop"
            return None
        self._tokens.append(token)
        if self.new_tokens == self._room:
            self.ending = self._room_ends
        return token


def _innermost(model: Any) -> Any:
    """The transformers model inside a PeftModel, or `model` itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _processors(config: Any, temperature: float) -> LogitsProcessorList:
    processors = LogitsProcessorList()
    if config.repetition_penalty not in (None, 1.0):
        processors.append(RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
    if temperature:
        processors.append(TemperatureLogitsWarper(temperature))
        if config.top_k:
            processors.append(TopKLogitsWarper(config.top_k))
        if config.top_p not in (None, 1.0):
            processors.append(TopPLogitsWarper(config.top_p))
        if config.min_p is not None:
            processors.append(MinPLogitsWarper(config.min_p))
    return processors
