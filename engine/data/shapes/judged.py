"""Rows to preference pairs (a better and a worse answer) and to answers with thumbs up or down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.data.contents import Conversation, Feedback, Message, Preference, Unusable
from engine.data.shapes.conversations import Columns, Row, Used, asked_text, context, system_in, tools_of
from engine.data.shapes.messages import is_messages, messages_in, tools_in, transcript_in
from engine.data.shapes.values import flag_in, list_in, text_in, type_name, value_at


def build_preference(row: Row, columns: Columns) -> tuple[Preference, Used]:
    prompt, prompt_used = _prompt(row, columns)
    chosen, chosen_alone = _answered(row, columns["chosen"], prompt)
    rejected, rejected_alone = _answered(row, columns["rejected"], prompt)
    if not (chosen_alone and rejected_alone) and not prompt:
        raise Unusable(f"has no prompt beside {columns['chosen']} and {columns['rejected']}")
    if chosen[:-1] != rejected[:-1]:
        where = f"{columns['chosen']} and {columns['rejected']}"
        raise Unusable(f"has in {where} conversations that differ before their last answer")
    if chosen[-1].content.strip() == rejected[-1].content.strip() and chosen[-1].more == rejected[-1].more:
        raise Unusable(f"has the same answer in {columns['chosen']} and {columns['rejected']}: neither is better")
    better, tools_used = _judged(row, columns, chosen)
    worse, _ = _judged(row, columns, rejected)
    # Where both hold the whole conversation, the prompt says it again and counts as used.
    return Preference(better, worse), (*prompt_used, columns["chosen"], columns["rejected"], *tools_used)


def build_feedback(row: Row, columns: Columns) -> tuple[Feedback, Used]:
    liked = flag_in(value_at(row, columns["liked"]))
    if liked is None:
        found = type_name(value_at(row, columns["liked"]))
        raise Unusable(f"has {found} in {columns['liked']} that is neither thumbs up nor down; wanted true or false")
    prompt, prompt_used = _prompt(row, columns)
    messages, alone = _answered(row, columns["answer"], prompt)
    if not alone and not prompt:
        raise Unusable(f"has no prompt beside {columns['answer']}")
    conversation, used = _judged(row, columns, messages)
    return Feedback(conversation, liked), (*prompt_used, columns["answer"], columns["liked"], *used)


def _prompt(row: Row, columns: Columns) -> tuple[tuple[Message, ...], Used]:
    """The messages of the question, none where it stands in the answers' own conversations."""
    column = columns.get("question")
    value: Any = None if column is None else value_at(row, column)
    if column is None or value is None:
        return (), ()
    if is_messages(value) and not isinstance(value, str):
        return messages_in(value, column, may_be_one=True), (column,)
    text, used = asked_text(row, columns)
    return ((Message("user", text),) if text.strip() else ()), used


def _answered(row: Row, column: str, prompt: tuple[Message, ...]) -> tuple[tuple[Message, ...], bool]:
    """The conversation that ends with the answer in `column`, and whether the column holds all of it itself."""
    value = value_at(row, column)
    if is_messages(value):
        said = messages_in(value, column, may_be_one=True)
        alone = any(message.role == "user" for message in said)
    elif turns := (None if prompt else transcript_in(text_in(value, column))):
        said, alone = turns, True
    else:
        said, alone = (Message("assistant", text_in(value, column)),), False
    if not said or said[-1].role != "assistant":
        raise Unusable(f"has a conversation in {column} that does not end with an answer")
    if not said[-1].content.strip() and not said[-1].more:
        raise Unusable(f"has an empty {column}: there is nothing to learn")
    return (said if alone else (*prompt, *said)), alone


def _judged(row: Row, columns: Columns, messages: tuple[Message, ...]) -> tuple[Conversation, Used]:
    """A conversation of which only the last answer is learnt."""
    system, spoken = system_in(row, columns, messages)
    tools, used = tools_of(row, columns)
    question = list_in(value_at(row, columns["question"])) if "question" in columns else None
    if not tools and isinstance(question, Mapping):
        tools = tools_in(question.get("tools"), f"{columns['question']}.tools")
    last = Message("assistant", messages[-1].content, True, messages[-1].more)
    whole = (*system, *context(messages[:-1]), last)
    is_pair = len(whole) == 2 and whole[0].role == "user" and not tools
    return Conversation(whole, is_pair, tools), (*used, *spoken)
