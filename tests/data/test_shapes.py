"""What a row means, and a reason for every row that means nothing that can be learnt."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.contents import Conversation, Message, PlainText, Recognised, Unusable
from engine.data.shapes import recognise

USER, ANSWER = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
ASKED, ANSWERED = Message("user", "Q"), Message("assistant", "A")


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
    ],
)
def test_the_shapes_people_have_are_recognised(row, content, shape):
    assert recognise(row) == Recognised(content, shape, unused=())


def test_fields_that_change_nothing_are_named():
    row = {"messages": [{**USER, "name": "Ada"}, ANSWER], "id": 7, "text": "T"}
    assert recognise(row).unused == ("id", "text", "messages[].name")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "has no fields that are known (found: none); wanted messages"),
        (
            {"Prompt": "Q", "reply": "A"},
            "has no fields that are known (found: Prompt, reply); wanted messages",
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
            "has the unknown role 'narrator' in messages[0]",
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
        (
            {"messages": [USER, {**ANSWER, "tool_calls": [{}]}]},
            "has a tool call (`tool_calls`) in messages[1]",
        ),
        ({"messages": [USER, ANSWER], "tools": [{}]}, "has tool definitions (`tools`), which finetui cannot"),
        ({"prompt": "Q", "chosen": "A", "rejected": "B"}, "has a preferred and a rejected answer (`chosen`)"),
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


scalars = st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["user", "assistant", "gpt"])
FIELDS = """messages conversations role from content value type text weight prompt completion instruction
input output question answer system tools"""
keys = st.sampled_from(FIELDS.split())
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(keys, anything, max_size=4))
def test_any_row_is_recognised_or_has_a_reason(row):
    before = json.dumps(row)
    try:
        content = recognise(row).content
    except Unusable as reason:
        assert str(reason)
    else:
        learnt = [content.text] if isinstance(content, PlainText) else []
        if isinstance(content, Conversation):
            learnt = [content.messages[index].content for index in content.answers]
        assert learnt and all(text.strip() for text in learnt)
    assert json.dumps(row) == before
