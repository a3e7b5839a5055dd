"""How much there is to learn from: tokens guessed from the characters of a first look at the data files."""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.data.contents import Conversation
from engine.data.preview import DataPreview
from profiles.planner import Job

_CHARACTERS_PER_TOKEN = 3.0
"""Of Latin text under the tokenizers of common models, on the safe side of the usual 3.5 to 4.5."""
_CHARACTERS_PER_TOKEN_SMALL_VOCABULARY = 2.0
_SMALL_VOCABULARY = 8192
_TEMPLATE_TOKENS = 8
"""What a chat template adds to each message."""
_UNKNOWN_ANSWER_TOKENS = 128


def job_of(train: Sequence[DataPreview], vocabulary: int, held_out: bool) -> Job:
    """The job that the training files make; without files a Job that knows nothing.

    `vocabulary` is the model's, and `held_out` says whether a file to measure on is given.
    """
    if not train:
        return Job(held_out=held_out)

    def tokens(data: DataPreview, characters: float) -> int:
        return _tokens(data, characters, vocabulary)

    total = sum(tokens(each, each.characters.mean) * each.estimated_rows for each in train)
    return Job(
        rows=max(1, sum(each.estimated_rows for each in train)),
        tokens=max(1, round(total)),
        longest_tokens=max(tokens(each, each.characters.maximum) for each in train),
        usual_tokens=max(tokens(each, each.characters.p99) for each in train),
        answer_tokens=max(_answer_tokens(each, vocabulary) for each in train),
        held_out=held_out,
    )


def _tokens(data: DataPreview, characters: float, vocabulary: int) -> int:
    """A guess at the tokens of a row of so many characters; scripts other than Latin take about one each."""
    sampled = "".join(text for sample in data.samples for text in sample.content.texts())
    other = sum(character > "\u024f" for character in sampled) / max(1, len(sampled))
    small = vocabulary < _SMALL_VOCABULARY
    latin = _CHARACTERS_PER_TOKEN_SMALL_VOCABULARY if small else _CHARACTERS_PER_TOKEN
    messages = [len(s.content.messages) for s in data.samples if isinstance(s.content, Conversation)]
    return math.ceil(characters * (other + (1 - other) / latin)) + _TEMPLATE_TOKENS * max(messages, default=1)


def _answer_tokens(data: DataPreview, vocabulary: int) -> int:
    conversations = [s.content for s in data.samples if isinstance(s.content, Conversation)]
    answers = [each.messages[index].content for each in conversations for index in each.answers]
    return _tokens(data, max(map(len, answers), default=0), vocabulary) if answers else _UNKNOWN_ANSWER_TOKENS
