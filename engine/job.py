"""How much there is to learn from: tokens guessed from the characters of a first look at the data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from engine.data.contents import Content, Conversation, Feedback, Message, Preference
from engine.data.preview import DataPreview
from engine.data.shapes import objective_for
from engine.spec import SourceSection
from profiles.planner import Job

_CHARACTERS_PER_TOKEN = 3.0
"""Of Latin text under the tokenizers of common models, on the safe side of the usual 3.5 to 4.5."""
_CHARACTERS_PER_TOKEN_SMALL_VOCABULARY = 2.0
_SMALL_VOCABULARY = 8192
_TEMPLATE_TOKENS = 8
"""What a chat template adds to each message."""
_PLAIN_TOKENS = 2
"""What a tokenizer puts around text that no template writes."""
_SAMPLED_TEXTS, _SAMPLED_CHARACTERS = 100, 1000
"""Enough to tell in which scripts the data are."""


def job_of(
    train: Sequence[DataPreview], vocabulary: int, held_out: bool, sections: Sequence[SourceSection] = ()
) -> Job:
    """The job that the training data make; without data a Job that knows nothing.

    A row is one unit of the data; its tokens are those of all its sequences, so a preference pair counts its prompt
    twice, while the longest and the usual tokens are of one sequence, which is what a length limit cuts.
    `vocabulary` is the model's, `held_out` says whether a file to measure on is given, and `sections` say how often
    each source comes in an epoch.
    """
    if not train:
        return Job(held_out=held_out)
    rows = [_usable_rows(each) for each in train]
    repeats = _repeats(sections, rows) if sections else [1.0] * len(train)
    tokens = [
        count * _tokens(each, each.sequences.mean, vocabulary) * each.sequences_per_row
        for each, count in zip(train, rows, strict=True)
    ]
    return Job(
        rows=max(1, round(sum(often * count for often, count in zip(repeats, rows, strict=True)))),
        tokens=max(1, round(sum(often * count for often, count in zip(repeats, tokens, strict=True)))),
        longest_tokens=max(_tokens(each, each.sequences.maximum, vocabulary) for each in train),
        usual_tokens=max(_tokens(each, each.sequences.p99, vocabulary) for each in train),
        answer_tokens=max(_answer_tokens(each, vocabulary) for each in train),
        held_out=held_out,
        objective=next((objective_for(each.kind) for each in train if each.kind), "next_token"),
    )


def part_of(job: Job, rows: int | None) -> Job:
    """The job when only `rows` of its rows are learnt from (data.rows); None for all."""
    if rows is None or not job.rows or rows >= job.rows:
        return job
    return replace(job, rows=rows, tokens=max(1, round(job.tokens * rows / job.rows)))


def _usable_rows(data: DataPreview) -> float:
    """Rows of the whole source that can be learnt from, if the rest of it is like its beginning."""
    return data.estimated_rows * data.usable_rows / data.rows if data.rows else 0.0


def _repeats(sections: Sequence[SourceSection], rows: Sequence[float]) -> Sequence[float]:
    """How often the rows of each source come in an epoch."""
    if not any(section.weight is not None for section in sections):
        return [section.repeats for section in sections]
    from engine.data.mixing import repeats_from_weights

    weights = [1.0 if section.weight is None else section.weight for section in sections]
    return repeats_from_weights(weights, [round(count) for count in rows])


def _tokens(data: DataPreview, characters: float, vocabulary: int) -> int:
    """A guess at the tokens of a sequence of so many characters; scripts other than Latin take about one each."""
    texts = (text for sample in data.samples for text in sample.content.texts())
    sampled = "".join(text[:_SAMPLED_CHARACTERS] for text in islice(texts, _SAMPLED_TEXTS))
    other = sum(character > "\u024f" for character in sampled) / max(1, len(sampled))
    small = vocabulary < _SMALL_VOCABULARY
    latin = _CHARACTERS_PER_TOKEN_SMALL_VOCABULARY if small else _CHARACTERS_PER_TOKEN
    around = max((_around(sample.content) for sample in data.samples), default=_TEMPLATE_TOKENS)
    return math.ceil(characters * (other + (1 - other) / latin)) + around


def _around(content: Content) -> int:
    """Tokens that are written around a content's texts, in one sequence; tools and tool calls are written as JSON."""
    conversation = _conversation(content)
    if conversation is None:
        return _PLAIN_TOKENS
    written = len(conversation.tools) + sum(len(message.more) for message in conversation.messages)
    return _TEMPLATE_TOKENS * len(conversation.messages) + math.ceil(written / _CHARACTERS_PER_TOKEN)


def _answer_tokens(data: DataPreview, vocabulary: int) -> int:
    """Of the longest answer in the samples; 0 where there is nothing to answer."""
    longest = max((len(answer.content) for sample in data.samples for answer in _answers(sample.content)), default=0)
    return _tokens(data, longest, vocabulary) if longest else 0


def _answers(content: Content) -> Iterator[Message]:
    conversation = _conversation(content)
    if conversation is not None:
        yield from (conversation.messages[index] for index in conversation.answers)


def _conversation(content: Content) -> Conversation | None:
    match content:
        case Conversation():
            return content
        case Preference(chosen=conversation) | Feedback(conversation=conversation):
            return conversation
    return None
