"""From a conversation to the token ids a model reads, and the tokens that end its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.data.contents import Unusable
from engine.data.tokens.sandbox import compile_template, render_limited
from profiles.problem import Problem

Message = dict[str, str]

ANSWER_MARK = "finetui-answer"


def encode_conversation(tokenizer: Any, messages: Sequence[Message], learned_pairs: bool) -> list[int]:
    """Token ids up to where the assistant's answer begins, through the model's own chat template.

    A model without a template continues plain text: the messages' contents, each on a line of its own where it
    learned from questions and answers written so (`learned_pairs`), else joined as they are. Raises Problem when
    the template refuses the conversation.
    """
    if tokenizer.chat_template is None:
        return _encode_plain(tokenizer, [message["content"] for message in messages], learned_pairs)
    try:
        text = _rendered(tokenizer, messages, ask=True)
    except Unusable as reason:
        raise Problem(
            "the conversation",
            str(reason),
            "Change the conversation; many templates refuse a system message, or two questions in a row.",
        ) from None
    # The template writes the special tokens itself.
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def stop_tokens(tokenizer: Any, generation_config: Any) -> frozenset[int]:
    """Ids that end an answer: the model's end-of-text tokens and what its chat template closes a turn with.

    The two differ in base models that carry a chat template, whose tuned versions learned the template's.
    """
    configured = generation_config.eos_token_id
    stops = {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])}
    if tokenizer.chat_template is not None:
        stops.add(_end_of_turn(tokenizer))
    return frozenset(token for token in stops if token is not None)


def _rendered(tokenizer: Any, messages: Sequence[Message], ask: bool) -> str:
    """As the tokenizer's own apply_chat_template does, within the limits that a template from elsewhere needs. Raises
    Unusable, and Problem for a template that is no Jinja."""
    templates = tokenizer.chat_template
    source = templates.get("default", "") if isinstance(templates, dict) else templates
    context = {"messages": list(messages), "tools": None, "documents": None, "add_generation_prompt": ask}
    template = compile_template(source, f"{tokenizer.name_or_path}, chat template")
    return render_limited(template, {**tokenizer.special_tokens_map, **context}, "the model's chat template")


def _encode_plain(tokenizer: Any, contents: Sequence[str], learned_pairs: bool) -> list[int]:
    text = ""
    for content in contents:
        text += content
        if learned_pairs and not text[-1:].isspace():
            text += "\n"
    ids = tokenizer(text)["input_ids"]
    # Some tokenizers end whatever they are given; there would be nothing left to continue.
    return ids[:-1] if ids[-1:] == [tokenizer.eos_token_id] else ids


def _end_of_turn(tokenizer: Any) -> int | None:
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": ANSWER_MARK}]
    try:
        text = _rendered(tokenizer, turns, ask=False)
    except Unusable:
        return None
    _, found, closing = text.rpartition(ANSWER_MARK)
    ids = tokenizer(closing.lstrip(), add_special_tokens=False)["input_ids"] if found else []
    # Some models add their end-of-turn token without calling it special.
    marks = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    return ids[0] if ids and ids[0] in marks else None
