"""What a row means, and a reason for every row that means nothing that can be learnt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.contents import (
    Content,
    Conversation,
    Feedback,
    Labelled,
    Message,
    PlainText,
    Preference,
    Recognised,
    Similar,
    Unusable,
    kind_of,
)
from engine.data.shapes import Recogniser, UnclearColumns, goes_with, reading_of, recognise
from engine.data.shapes.suggestions import suggestions_for
from engine.data.source import Source

USER, ANSWER = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
WORSE = {"role": "assistant", "content": "B"}
ASKED, ANSWERED = Message("user", "Q"), Message("assistant", "A")
PAIR = Conversation((ASKED, ANSWERED), is_pair=True)
BETTER = Preference(PAIR, Conversation((ASKED, Message("assistant", "B")), is_pair=True))
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def calling(call: dict, **further: object) -> Message:
    return Message("assistant", "", more=json.dumps({**further, "tool_calls": [call]}))


@pytest.mark.parametrize(
    ("row", "content", "shape"),
    [
        ({"messages": [USER, ANSWER]}, Conversation((ASKED, ANSWERED)), "messages"),
        (
            {"messages": [{"role": "developer", "content": "S"}, USER, ANSWER, USER]},
            Conversation((Message("system", "S"), ASKED, ANSWERED, ASKED)),
            "messages",
        ),
        (
            {
                "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}],
                "system": "S",
            },
            Conversation((Message("system", "S"), ASKED, ANSWERED)),
            "conversations, system",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}]}, ANSWER]},
            Conversation((ASKED, ANSWERED)),
            "messages",
        ),
        (
            {"messages": [USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "weight": 1}]},
            Conversation((ASKED, Message("assistant", "A", learnt=False), ASKED, ANSWERED)),
            "messages",
        ),
        (
            {"prompt": "Q", "completion": "A"},
            Conversation((ASKED, ANSWERED), is_pair=True),
            "prompt, completion",
        ),
        (
            {"prompt": [USER, ANSWER, USER], "completion": [ANSWER]},
            Conversation((ASKED, Message("assistant", "A", learnt=False), ASKED, ANSWERED)),
            "prompt, completion",
        ),
        (
            {"instruction": "Q", "input": "more", "output": "A"},
            Conversation((Message("user", "Q\n\nmore"), ANSWERED), is_pair=True),
            "instruction, input, output",
        ),
        (
            {"instruction": "Q", "input": "", "output": "A"},
            Conversation((ASKED, ANSWERED), is_pair=True),
            "instruction, input, output",
        ),
        ({"question": "Q", "answer": "A"}, Conversation((ASKED, ANSWERED), is_pair=True), "question, answer"),
        ({"text": " as it is \n"}, PlainText(" as it is \n"), "text"),
        # Names of one's own, in several languages, with what only describes the row beside them.
        ({"Prompt": "Q", "reply": "A"}, PAIR, "Prompt, reply"),
        ({"Frage": "Q", "Antwort": "A"}, PAIR, "Frage, Antwort"),
        ({"userQuestion": "Q", "model_response": "A"}, PAIR, "userQuestion, model_response"),
        ({"article": "Q", "highlights": "A"}, PAIR, "article, highlights"),
        ({"question": "Q", "answers": {"text": ["A", "a"], "answer_start": [0, 9]}}, PAIR, "question, answers"),
        (
            {"instruction": "Q", "output": "A", "history": [["q", "a"]], "system": "S"},
            Conversation((Message("system", "S"), Message("user", "q"), Message("assistant", "a"), ASKED, ANSWERED)),
            "instruction, output, history, system",
        ),
        ({"messages": None, "prompt": "Q", "completion": "A"}, PAIR, "prompt, completion"),
        ({"messages": json.dumps([USER, ANSWER])}, Conversation((ASKED, ANSWERED)), "messages"),
        ({"prompt": [USER], "completion": "A"}, Conversation((ASKED, ANSWERED)), "prompt, completion"),
        # Better and worse answers, in every form they are published in.
        ({"prompt": "Q", "chosen": "A", "rejected": "B"}, BETTER, "prompt, chosen, rejected"),
        ({"chosen": [USER, ANSWER], "rejected": [USER, WORSE]}, BETTER, "chosen, rejected"),
        ({"prompt": [USER], "chosen": [ANSWER], "rejected": [WORSE]}, BETTER, "prompt, chosen, rejected"),
        ({"prompt": "Q", "chosen": [USER, ANSWER], "rejected": [USER, WORSE]}, BETTER, "prompt, chosen, rejected"),
        (
            {"conversations": [{"from": "human", "value": "Q"}], "chosen": ANSWER, "rejected": WORSE},
            BETTER,
            "conversations, chosen, rejected",
        ),
        (
            {"input": {"messages": [USER]}, "preferred_output": [ANSWER], "non_preferred_output": [WORSE]},
            BETTER,
            "input, preferred_output, non_preferred_output",
        ),
        (
            {"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"},
            BETTER,
            "chosen, rejected",
        ),
        # Thumbs, which make a conversation feedback only where the column holds thumbs.
        ({"prompt": "Q", "completion": "A", "label": True}, Feedback(PAIR, True), "prompt, completion, label"),
        ({"prompt": [USER], "completion": [ANSWER], "label": 0}, Feedback(PAIR, False), "prompt, completion, label"),
        ({"messages": [USER, ANSWER], "thumbs": "Thumbs down"}, Feedback(PAIR, False), "messages, thumbs"),
        ({"text": "T", "label": 1}, Labelled("T", ("1",)), "text, label"),
        ({"sentence": "T", "labels": ["a", "b", "a"]}, Labelled("T", ("a", "b"), several=True), "sentence, labels"),
        ({"text": "T", "labels": []}, Labelled("T", (), several=True), "text, labels"),
        ({"text": "T", "topic": "sport"}, Labelled("T", ("sport",)), "text, topic"),
        (
            {"premise": "P", "hypothesis": "H", "label": "entailment"},
            Labelled("P\n\nH", ("entailment",)),
            "premise, hypothesis, label",
        ),
        ({"anchor": "a", "positive": "p", "negative": "n"}, Similar("a", "p", ("n",)), "anchor, positive, negative"),
        ({"query": "a", "pos": ["p"], "neg": ["n", "m"]}, Similar("a", "p", ("n", "m")), "query, pos, neg"),
        ({"query": "a", "passage": "p"}, Similar("a", "p"), "query, passage"),
        ({"question": "a", "context": "p"}, Similar("a", "p"), "question, context"),
        ({"sentence1": "a", "sentence2": "p", "score": 1}, Similar("a", "p"), "sentence1, sentence2, score"),
    ],
)
def test_the_shapes_people_have_are_recognised(row, content, shape):
    assert recognise(row) == Recognised(content, shape, unused=())


def test_tools_and_tool_calls_reach_the_template_with_arguments_as_objects():
    called = {**CALL, "function": {"name": "f", "arguments": {"x": 1}}}
    row = {
        "messages": [
            USER,
            {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "why"},
            {"role": "tool", "tool_call_id": "c", "name": "f", "content": "7"},
            ANSWER,
        ],
        "tools": json.dumps([TOOL]),
    }
    found = recognise(row)
    told = Message("tool", "7", more='{"tool_call_id": "c", "name": "f"}')
    messages = (ASKED, calling(called, reasoning_content="why"), told, ANSWERED)
    assert found == Recognised(Conversation(messages, tools=json.dumps([TOOL])), "messages, tools", ())
    sharegpt = {
        "conversations": [
            {"from": "human", "value": "Q"},
            {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
            {"from": "observation", "value": "7"},
            {"from": "gpt", "value": "A"},
        ],
        "tools": '[{"name": "f", "parameters": {}}]',
    }
    bare = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    content = recognise(sharegpt).content
    assert content == Conversation((ASKED, calling(bare), Message("tool", "7"), ANSWERED), tools=json.dumps([TOOL]))


def test_only_the_last_answer_of_a_judged_conversation_is_learnt():
    told = [USER, ANSWER, USER]
    content = recognise({"prompt": told, "chosen": [ANSWER], "rejected": [WORSE]}).content
    assert isinstance(content, Preference)
    assert content.chosen.messages[:-1] == content.rejected.messages[:-1]
    assert content.chosen.answers == content.rejected.answers == (3,)
    liked = recognise({"messages": [*told, ANSWER], "label": True}).content
    assert isinstance(liked, Feedback) and liked.conversation.answers == (3,)


@pytest.mark.parametrize(
    ("row", "unused"),
    [
        ({"prompt": "Q", "chosen": "A", "rejected": "B", "margin": 0.4}, ("margin",)),
        ({"question": "Q", "answer": "A", "label": "history"}, ("label",)),
        ({"text": "T", "topic": "sport", "source": "web", "words": 7}, ("topic", "source", "words")),
        ({"text": "T", "label": 1, "label_text": "good"}, ("label",)),
    ],
)
def test_columns_that_are_not_what_they_could_be_are_told_of(row, unused):
    assert recognise(row).unused == unused


def test_fields_that_change_nothing_are_named():
    row = {"messages": [{**USER, "name": "Ada"}, ANSWER], "id": 7, "text": "T"}
    assert recognise(row).unused == ("id", "text", "messages[].name")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "has no fields that are known (found: none); wanted messages"),
        ({"ask": "Q", "margin": "A"}, "has no fields that are known (found: ask, margin); wanted messages"),
        (
            {"question": "Q", "answer_a": "A", "answer_b": "B"},
            "does not tell which column is the answer: `answer_a` or `answer_b`",
        ),
        ({"prompt": "Q"}, "has no fields that are known (found: prompt)"),
        ({"messages": USER}, "has an object in messages; wanted a list"),
        ({"messages": None}, "has null in messages; wanted a list"),
        ({"messages": []}, "has no messages in messages"),
        ({"messages": ["Q", "A"]}, "has text in messages[0]; wanted an object with role and content"),
        ({"messages": [USER]}, "has no assistant turn in messages: there is nothing to learn"),
        ({"messages": [{"content": "Q"}, ANSWER]}, "has no role in messages[0]"),
        (
            {"messages": [{"role": 1, "content": "Q"}, ANSWER]},
            "has a number in messages[0].role; wanted text",
        ),
        (
            {"messages": [{"role": "narrator", "content": "Q"}]},
            "has the unknown role “narrator” in messages[0]",
        ),
        ({"messages": [{"role": "user"}, ANSWER]}, "has no content in messages[0]"),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, "has null in messages[1].content"),
        ({"messages": [USER, {"role": "assistant", "content": 3}]}, "has a number in messages[1].content"),
        ({"messages": [USER, {"role": "assistant", "content": " \n"}]}, "has an empty answer in messages[1]"),
        ({"messages": [USER, {**ANSWER, "weight": 0}]}, "has weight 0 on every answer"),
        (
            {"messages": [USER, {**ANSWER, "weight": 0.5}]},
            "has a weight in messages[1] that is neither 0 nor 1",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": "http://x"}]},
                    ANSWER,
                ]
            },
            "has a part of type image_url in messages[0].content[0]; only text is learnt, nothing is fetched",
        ),
        ({"messages": [USER, {**ANSWER, "tool_calls": [{}]}]}, "has a tool call without a name in messages[1]"),
        ({"messages": [USER, {**ANSWER, "tool_calls": 3}]}, "has a number in messages[1].tool_calls; wanted a list"),
        ({"messages": [USER, ANSWER], "tools": "f"}, "has text in tools; wanted a list of tool definitions"),
        ({"chosen": "A", "rejected": "B"}, "has no prompt beside chosen and rejected"),
        ({"prompt": "Q", "chosen": "A", "rejected": " A"}, "has the same answer in chosen and rejected"),
        ({"prompt": "Q", "chosen": "", "rejected": "B"}, "has an empty chosen: there is nothing to learn"),
        (
            {"chosen": [USER, ANSWER], "rejected": [ANSWER, USER, WORSE]},
            "has in chosen and rejected conversations that differ before their last answer",
        ),
        (
            {"chosen": [USER], "rejected": [USER, WORSE]},
            "has a conversation in chosen that does not end with an answer",
        ),
        ({"text": "", "label": "a"}, "has an empty text: there is nothing to classify"),
        ({"text": "T", "label": 0.5}, "has the number 0.5 in label; wanted a class"),
        ({"anchor": "a", "positive": ""}, "has an empty positive: there is nothing to compare"),
        ({"sentence1": "a", "sentence2": "b", "label": 0}, "has a label of 0: only pairs of 0.8 and more (of 1)"),
        (
            {"system": "S", "messages": [{"role": "system", "content": "T"}, USER, ANSWER]},
            "has a field `system` and a system message too; keep one of them",
        ),
        ({"system": 1, "messages": [USER, ANSWER]}, "has a number in system; wanted text"),
        ({"prompt": "Q", "completion": ""}, "has an empty completion: there is nothing to learn"),
        ({"prompt": "Q", "completion": None}, "has null in completion; wanted text"),
        ({"prompt": 3, "completion": "A"}, "has a number in prompt; wanted text"),
        ({"prompt": "", "completion": "A"}, "has an empty prompt; write text to continue as"),
        ({"instruction": "Q", "input": [], "output": "A"}, "has a list in input; wanted text"),
        ({"text": " \n"}, "has an empty text: there is nothing to learn"),
        ({"text": False}, "has true or false in text; wanted text"),
    ],
)
def test_a_row_that_cannot_be_learnt_has_a_reason(row, reason):
    with pytest.raises(Unusable) as caught:
        recognise(row)
    assert str(caught.value).startswith(reason)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["user", "gpt", "[{}]"])
FIELDS = """messages conversations role from content value type text weight prompt completion instruction input output
question answer system tools tool_calls function name arguments chosen rejected label labels liked anchor positive
negative score history sentence1 sentence2 function_call"""
keys = st.sampled_from(FIELDS.split())
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


def learnt_texts(content: Content) -> list[str]:
    match content:
        case Conversation():
            return [message.content or message.more for message in map(content.messages.__getitem__, content.answers)]
        case Preference():
            return learnt_texts(content.chosen) + learnt_texts(content.rejected)
        case Feedback():
            return learnt_texts(content.conversation)
    return list(content.texts())


@given(st.lists(st.dictionaries(keys, anything, max_size=4), max_size=4), st.dictionaries(keys, anything, max_size=4))
def test_any_rows_can_be_read_or_are_asked_about(first_rows, later_row):
    source = Source(Path("rows.jsonl"))
    try:
        reading = reading_of(source, first_rows)
    except UnclearColumns as question:
        assert question.fix
        return
    recogniser = Recogniser(source, reading)
    for row in (*first_rows, later_row):
        try:
            content = recogniser.recognise(row).content
        except Unusable:
            continue
        assert goes_with(kind_of(content), reading.kind)
    assert suggestions_for(source, reading, first_rows) is not None


@given(st.dictionaries(keys, anything, max_size=5))
def test_any_row_is_recognised_or_has_a_reason(row):
    before = json.dumps(row)
    try:
        found = recognise(row)
    except Unusable as reason:
        assert str(reason)
    else:
        assert all(text.strip() for text in learnt_texts(found.content))
        hash(found.content)
    assert json.dumps(row) == before
