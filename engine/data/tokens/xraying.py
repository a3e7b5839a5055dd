"""Makes the X-ray of a row: its tokens, which of them are learnt, and what a person should notice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.data.contents import Content, Feedback, Labelled, Preference, Similar, Unusable
from engine.data.tokens.encoded import Encoded, Tokenised
from engine.data.tokens.text_tokenizer import TextTokenizer
from engine.data.tokens.tokeniser import Tokeniser
from engine.data.tokens.xray import TrainOn, XRay, XRayToken
from profiles.problem import printable


def xray(
    content: Content,
    tokenizer: TextTokenizer,
    sequence_length: int,
    train_on: TrainOn,
    tokeniser: Tokeniser | None = None,
) -> list[XRay]:
    """An X-ray for each sequence of the row; `tokeniser` is one of this tokenizer that was made before.

    Raises Unusable when nothing can be learnt from the row whatever its length, and Problem when the model cannot
    tokenise rows of this kind.
    """
    (result,) = (tokeniser or Tokeniser(tokenizer)).tokenise([content])
    if isinstance(result, Unusable):
        raise result
    return [
        _sequence(name, sequence, content, result, tokenizer, sequence_length, train_on)
        for name, sequence in zip(_names(content), result.sequences, strict=True)
    ]


def _names(content: Content) -> list[str]:
    match content:
        case Preference():
            return ["chosen", "rejected"]
        case Similar():
            return ["anchor", "positive", *(f"negative {number}" for number in range(1, len(content.negatives) + 1))]
    return [""]


def _sequence(
    name: str,
    sequence: Encoded,
    content: Content,
    result: Tokenised,
    tokenizer: TextTokenizer,
    sequence_length: int,
    train_on: TrainOn,
) -> XRay:
    ids = sequence.ids.tolist()
    kept = len(ids) if result.windows else min(sequence_length, len(ids))
    answer_of = {at: number for number, (begins, ends) in enumerate(sequence.answers) for at in range(begins, ends)}
    learnt = _learnt(sequence, content, train_on)
    last_of_answer = {ends - 1 for _, ends in sequence.answers}
    tokens = tuple(
        XRayToken(
            id=token,
            text=text,
            trained=0 < at < kept and at in learnt,
            special=token in tokenizer.special,
            stop=at in last_of_answer and (token in tokenizer.special or token == tokenizer.eos_id),
            cut=at >= kept,
            answer=answer_of.get(at),
        )
        for at, (token, text) in enumerate(zip(ids, tokenizer.pieces(ids), strict=True))
    )
    trained = sum(token.trained for token in tokens)
    counts = {
        "tokens": len(ids),
        "learnt": trained,
        "masked": kept - trained,
        "cut": len(ids) - kept,
        "special": sum(token.special for token in tokens),
        "answers": len(sequence.answers),
    }
    return XRay(name, tokens, tuple(_notes(tokens, sequence, content, result, sequence_length, kept)), counts)


def _learnt(sequence: Encoded, content: Content, train_on: TrainOn) -> range | set[int]:
    """Places of the tokens that are targets."""
    if isinstance(content, Labelled | Similar):
        return range(0)
    if train_on == "everything" and not isinstance(content, Preference | Feedback):
        return range(len(sequence))
    spans = sequence.answers if train_on == "answers" else sequence.answers[-1:]
    return {at for begins, ends in spans for at in range(begins, ends)}


def _notes(
    tokens: Sequence[XRayToken],
    sequence: Encoded,
    content: Content,
    result: Tokenised,
    sequence_length: int,
    kept: int,
) -> Iterator[str]:
    if isinstance(content, Labelled):
        labels = ", ".join(printable(label, 40) for label in content.labels) or "no class"
        yield f"no token is a target: the whole text is read, and {labels} is learnt for it"
    elif isinstance(content, Similar):
        yield "no token is a target: the texts' vectors are learnt"
    elif not any(token.trained for token in tokens):
        yield f"nothing would be learnt: the answer lies beyond {sequence_length:,} tokens, so the row is set aside"
    if result.windows and len(tokens) > sequence_length:
        # Each part begins with the last token of the one before, so that every token but the first is a target once.
        parts = -(-(len(tokens) - 1) // (sequence_length - 1))
        yield f"longer than {sequence_length:,} tokens: learnt in {parts:,} parts"
    elif kept < len(tokens):
        yield f"cut at {sequence_length:,} tokens: the last {len(tokens) - kept:,} are left out"
    for number, (_, ends) in enumerate(sequence.answers, 1):
        if not tokens[ends - 1].stop:
            which = "the answer" if len(sequence.answers) == 1 else f"answer {number}"
            yield f"{which} ends without an end token, so the model does not learn there to stop"
        elif ends > kept and not result.windows:
            which = "the answer's" if len(sequence.answers) == 1 else f"answer {number}'s"
            yield f"{which} end token is cut off, so the model does not learn there to stop"
    for role in result.altered:
        yield f"the chat template leaves out or changes the text of {role} messages"
    yield from result.warnings
