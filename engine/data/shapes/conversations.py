"""Rows to conversations and plain text: lists of messages, question and answer, text alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.data.contents import Conversation, Message, PlainText, Unusable
from engine.data.shapes.messages import messages_in, tools_in
from engine.data.shapes.values import answer_in, list_in, text_in, type_name, value_at

Row = Mapping[str, Any]
Columns = Mapping[str, str]
Used = tuple[str, ...]


def build_messages(row: Row, columns: Columns) -> tuple[Conversation, Used]:
    column = columns["messages"]
    value = value_at(row, column)
    messages = messages_in(value, column)
    tools, used = tools_of(row, columns)
    if isinstance(found := list_in(value), Mapping) and not tools:
        tools = tools_in(found.get("tools"), f"{column}.tools")
    system, spoken = system_in(row, columns, messages)
    return learnable(Conversation((*system, *messages), tools=tools), column), (column, *used, *spoken)


def build_pair(row: Row, columns: Columns) -> tuple[Conversation, Used]:
    question, answer = columns["question"], columns["answer"]
    asked, answered = value_at(row, question), value_at(row, answer)
    tools, more_used = tools_of(row, columns)
    if isinstance(asked, list):
        messages = context(messages_in(asked, question)) + _reply(answered, answer)
        system, spoken = system_in(row, columns, messages)
        conversation = learnable(Conversation((*system, *messages), tools=tools), answer)
        return conversation, (question, answer, *more_used, *spoken)
    text, used = asked_text(row, columns)
    reply = _answer_text(answered, answer)
    earlier, recalled = _history(row, columns)
    pair = (*earlier, Message("user", text), Message("assistant", reply))
    system, spoken = system_in(row, columns, pair)
    if not text and "system" not in columns:
        raise Unusable(f'has an empty {question}; write text to continue as {{"text": ...}}')
    is_pair = not (system or earlier or tools)
    return Conversation((*system, *pair), is_pair, tools), (*used, answer, *recalled, *more_used, *spoken)


def build_text(row: Row, columns: Columns) -> tuple[PlainText, Used]:
    column = columns["text"]
    text = text_in(value_at(row, column), column)
    if not text.strip():
        raise Unusable(f"has an empty {column}: there is nothing to learn")
    return PlainText(text), (column,)


def asked_text(row: Row, columns: Columns) -> tuple[str, Used]:
    """The question, with what else belongs to it below, and the columns that say it."""
    column = columns["question"]
    text = text_in(value_at(row, column), column)
    further = columns.get("further")
    more = None if further is None else value_at(row, further)
    if further is None or more is None:
        return text, (column,)
    said = text_in(more, further)
    return f"{text}\n\n{said}" if said else text, (column, further)


def system_in(row: Row, columns: Columns, messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], Used]:
    """The message that a system column puts in front of `messages`, and the column when it was looked at."""
    column = columns.get("system")
    value = None if column is None else value_at(row, column)
    if column is None or value is None:
        return (), ()
    system = text_in(value, column)
    if not system.strip():
        return (), (column,)
    if messages[0].role == "system":
        raise Unusable(f"has a field `{column}` and a system message too; keep one of them")
    return (Message("system", system),), (column,)


def context(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Messages of which no answer is learnt."""
    return tuple(replace(each, learnt=False) if each.role == "assistant" else each for each in messages)


def learnable(conversation: Conversation, column: str) -> Conversation:
    """The conversation itself. Raises Unusable when nothing in it can be learnt."""
    if not any(message.role == "assistant" for message in conversation.messages):
        raise Unusable(f"has no assistant turn in {column}: there is nothing to learn")
    if not conversation.answers:
        raise Unusable("has weight 0 on every answer: there is nothing to learn")
    return conversation


def tools_of(row: Row, columns: Columns) -> tuple[str, Used]:
    """The definitions in a tools column as JSON, and the column when it was looked at."""
    column = columns.get("tools")
    value = None if column is None else value_at(row, column)
    return ("", ()) if column is None or value is None else (tools_in(value, column), (column,))


def _reply(value: Any, place: str) -> tuple[Message, ...]:
    """What follows messages: further messages, or the text of the answer."""
    if isinstance(value, list) or (isinstance(value, Mapping) and "role" in value):
        return messages_in(value, place, may_be_one=True)
    return (Message("assistant", _answer_text(value, place)),)


def _answer_text(value: Any, place: str) -> str:
    text = answer_in(value, place)
    if not text.strip():
        raise Unusable(f"has an empty {place}: there is nothing to learn")
    return text


def _history(row: Row, columns: Columns) -> tuple[tuple[Message, ...], Used]:
    """Earlier turns as pairs of question and answer, which are learnt too, as LLaMA-Factory does."""
    column = columns.get("history")
    value = None if column is None else list_in(value_at(row, column))
    if column is None or value is None or value == "":
        return (), ()
    if not isinstance(value, list):
        raise Unusable(f"has {type_name(value)} in {column}; wanted a list of question and answer pairs")
    turns: list[Message] = []
    for index, pair in enumerate(value):
        if not isinstance(pair, list) or len(pair) != 2:
            raise Unusable(f"has {type_name(pair)} in {column}[{index}]; wanted a question and its answer")
        place = f"{column}[{index}]"
        turns += [Message("user", text_in(pair[0], place)), Message("assistant", text_in(pair[1], place))]
    return tuple(turns), (column,)
