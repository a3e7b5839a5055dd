"""A template writes the same text, and gives the same ids, as transformers' apply_chat_template."""

from __future__ import annotations

import json

import pytest
from chat_families import tokenizer_of

from engine.data.contents import Conversation, Message
from engine.data.tokens.encoded import LEAVES_OUT_TOOLS, Tokenised
from engine.data.tokens.reference import describe
from engine.data.tokens.templates import KNOWN_TEMPLATES
from engine.data.tokens.text_tokenizer import TextTokenizer
from engine.data.tokens.tokeniser import Tokeniser

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "x": "<é>"}}}]
CALL = [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Zürich", "days": 2}}}]
TURNS = (
    Message("system", "Be kind."),
    Message("user", "Hello & <b>"),
    Message("assistant", "Hi."),
    Message("user", "Weather?"),
    Message("assistant", "", more=json.dumps({"tool_calls": CALL})),
    Message("tool", "sunny", more=json.dumps({"name": "weather", "tool_call_id": "1"})),
    Message("assistant", "Sunny.", more=json.dumps({"reasoning_content": "it said so"})),
)
CHATML = "{{ '<|im_start|>' + m.role + '\n' + m.content }}"
CALLS = (
    "{% if m.tool_calls %}{% for c in m.tool_calls %}<tool_call>{{ c.function | tojson }}</tool_call>"
    "{% endfor %}{% endif %}"
)
END = "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
TEMPLATES = {
    "tools": "{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}{% for m in messages %}" + CHATML + CALLS + END,
    "loops": "{% for m in messages %}{% if loop.index > 9 %}{% break %}{% endif %}{% if m.role == 'x' %}{% continue %}"
    "{% endif %}" + CHATML + CALLS + END,
    "marked": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}" + CHATML + CALLS
    + "{% endgeneration %}{% else %}" + CHATML + "{% endif %}" + END,
    "values": "{% set ns = namespace(n=0, self=1) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{{ ns.n }}"
    "{{ dict(a=m.role) | tojson }}{{ m.get('reasoning_content', '') }}{{ m.thinking }}" + CHATML + CALLS + END,
    # The year: another day may begin between the two.
    "year": "{{ strftime_now('in %Y') }}{% for m in messages %}" + CHATML + CALLS + END,
}  # fmt: skip


def both(template: str, turns: tuple[Message, ...], tools: list | None = None) -> tuple[Tokenised, list[int]]:
    """What becomes of a conversation here, and transformers' ids."""
    family = tokenizer_of("chatml")
    tokenizer = type(family)(tokenizer_object=family.backend_tokenizer, eos_token="<|im_end|>", chat_template=template)
    tokeniser = Tokeniser(TextTokenizer("model", describe(tokenizer)))
    conversation = Conversation(turns, tools=json.dumps(tools) if tools else "")
    (result,) = tokeniser.tokenise([conversation])
    assert isinstance(result, Tokenised), result
    messages = [turn.as_dict() for turn in turns]
    return result, tokenizer.apply_chat_template(messages, tools=tools, return_dict=False)


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_environment_of_templates_is_that_of_transformers(name: str):
    result, wanted = both(TEMPLATES[name], TURNS, TOOLS)
    assert result.sequences[0].ids.tolist() == wanted


def test_white_space_in_templates_is_kept_as_transformers_keeps_it():
    template = """  {% for m in messages %}\n    {% if m.role == 'user' %}\n  {{ m.content }}\n    {% endif %}\n
{% if m.role == 'assistant' %}\n[{{ m.content }}]<|im_end|>\n{% endif %}{% endfor %}\n"""
    result, wanted = both(template, TURNS[1:3])
    # The text is the same; its tokens begin anew with the answer, as they will when the model is asked.
    decode = tokenizer_of("chatml").decode
    assert decode(result.sequences[0].ids) == decode(wanted)


def test_the_whole_turn_of_an_answer_that_calls_a_tool_is_learnt():
    family = tokenizer_of("chatml")
    result, _ = both(TEMPLATES["tools"], TURNS, TOOLS)
    (only,) = result.sequences
    call = json.dumps(CALL[0]["function"], ensure_ascii=False)
    assert [family.decode(only.ids[begins:ends]) for begins, ends in only.answers] == [
        "Hi.<|im_end|>",
        f"<tool_call>{call}</tool_call><|im_end|>",
        "Sunny.<|im_end|>",
    ]
    assert result.warnings == ()
    without, _ = both(TEMPLATES["loops"], TURNS[:3], TOOLS)
    assert without.warnings == (LEAVES_OUT_TOOLS,)


def test_the_known_chatml_writes_tools_and_calls():
    result, wanted = both(KNOWN_TEMPLATES["chatml"].text, TURNS, TOOLS)
    (only,) = result.sequences
    assert only.ids.tolist() == wanted and result.warnings == () == result.altered
    begins, ends = only.answers[1]
    assert tokenizer_of("chatml").decode(only.ids[begins:ends]) == (
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich", "days": 2}}\n</tool_call><|im_end|>'
    )


@pytest.mark.parametrize("name", KNOWN_TEMPLATES)
def test_known_templates_end_every_answer_and_ask_as_they_answer(name: str):
    family = tokenizer_of("llama3")
    tokenizer = type(family)(
        tokenizer_object=family.backend_tokenizer,
        bos_token=family.bos_token,
        eos_token=family.eos_token,
        chat_template=KNOWN_TEMPLATES[name].text,
    )
    turns = (*TURNS[:3], Message("user", "Weather?"), Message("assistant", "Sunny."))
    (result,) = Tokeniser(TextTokenizer("model", describe(tokenizer))).tokenise([Conversation(turns)])
    assert isinstance(result, Tokenised) and result.altered == ()
    (only,) = result.sequences
    told = [tokenizer.decode(only.ids[begins:ends]).strip() for begins, ends in only.answers]
    assert [text.split(".")[0] for text in told] == ["Hi", "Sunny"]
    # Every answer ends in the same way, with a token of the family's or with the end of turn that the template writes.
    endings = [text.split(".")[1] for text in told]
    assert endings[0] == endings[1] != ""
    asked = tokenizer.apply_chat_template(
        [turn.as_dict() for turn in turns[:4]], add_generation_prompt=True, return_dict=False
    )
    assert only.ids[: only.prompt_tokens].tolist() == asked
