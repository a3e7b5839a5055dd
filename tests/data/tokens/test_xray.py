"""The X-ray of a row says of every token whether it is learnt, and a desk gives it without ever hanging."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chat_families import FAMILIES, tokenizer_of

from engine.data.contents import Conversation, Labelled, Message, PlainText, Preference, Unusable
from engine.data.source import Source
from engine.data.tokens.desk import Desk
from engine.data.tokens.loading import load_text_tokenizer
from engine.data.tokens.reference import describe, describe_folder
from engine.data.tokens.text_tokenizer import TextTokenizer
from engine.data.tokens.xray import XRay
from engine.data.tokens.xraying import xray
from profiles.problem import Problem

CHAT = Conversation(
    (Message("user", "a?"), Message("assistant", "one"), Message("user", "b?"), Message("assistant", "two"))
)


def rayed(content, length: int = 512, train_on="answers", family: str = "llama3") -> list[XRay]:
    found = xray(content, TextTokenizer(family, describe(tokenizer_of(family))), length, train_on)
    assert [XRay.from_dict(json.loads(json.dumps(each.as_dict()))) for each in found] == found
    for each in found:
        counts = each.counts
        assert counts["learnt"] + counts["masked"] + counts["cut"] == counts["tokens"] == len(each.tokens)
    return found


def learnt(found: XRay) -> str:
    return "".join(token.text for token in found.tokens if token.trained)


def test_what_is_learnt_masked_and_cut():
    (answers,) = rayed(CHAT)
    assert learnt(answers) == "one<|eot_id|>two<|eot_id|>" and answers.notes == ()
    assert [token.text for token in answers.tokens if token.stop] == ["<|eot_id|>"] * 2
    assert {token.answer for token in answers.tokens} == {None, 0, 1}
    assert learnt(rayed(CHAT, train_on="last_answer")[0]) == "two<|eot_id|>"
    (everything,) = rayed(CHAT, train_on="everything")
    assert everything.counts["masked"] == 1 and not everything.tokens[0].trained
    place = answers.tokens.index(next(token for token in answers.tokens if token.answer == 1))
    (cut,) = rayed(CHAT, length=place)
    assert learnt(cut) == "one<|eot_id|>" and cut.tokens[place].cut and not cut.tokens[place - 1].cut
    assert cut.notes[-1] == "answer 2's end token is cut off, so the model does not learn there to stop"
    assert "so the row is set aside" in rayed(CHAT, length=8)[0].notes[0]


def test_other_kinds_of_content():
    pair = rayed(Preference(Conversation(CHAT.messages[:2]), Conversation((CHAT.messages[0], CHAT.messages[3]))))
    assert [(each.name, learnt(each)) for each in pair] == [("chosen", "one<|eot_id|>"), ("rejected", "two<|eot_id|>")]
    (labelled,) = rayed(Labelled("some text", ("spam",)))
    assert labelled.counts["learnt"] == 0 and "spam is learnt for it" in labelled.notes[0]
    (text,) = rayed(PlainText("one two three four five " * 9), length=16)
    assert text.counts["cut"] == 0 and "learnt in " in text.notes[0]
    with pytest.raises(Unusable, match="System role not supported"):
        rayed(Conversation((Message("system", "s"), *CHAT.messages)), family="gemma")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    tokenizer_of("chatml").save_pretrained(tmp_path / "model")
    load_text_tokenizer(tmp_path / "model", describe=describe_folder)  # so that no child has to import transformers
    return tmp_path / "model"


def test_a_desk_answers_about_rows_and_survives_a_template_that_never_ends(model: Path, tmp_path: Path):
    data = tmp_path / "data.jsonl"
    rows = [{"prompt": f"What is {number}?", "completion": "It is one."} for number in range(20)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows[:10]) + "broken\n" + json.dumps(rows[10]) + "\n")
    source = Source(data)
    with Desk(model) as desk:
        assert learnt(desk.xray(source, 3, 512)[0]) == "It is one.<|im_end|>"
        assert learnt(desk.xray(source, 12, 512)[0]) == learnt(desk.xray(source, 1, 512)[0])
        lengths = desk.lengths(source, 100)
        assert [each.line for each in lengths] == [*range(1, 11), 12]
        assert lengths[0].tokens == desk.xray(source, 1, 512)[0].counts["tokens"]
        for line, told in ((11, "data.jsonl, line 11: "), (99, "has no row at 99")):
            with pytest.raises(Problem, match=told):
                desk.xray(source, line, 512)
        assert desk.has_template and desk.suggested_template()[0] == "chatml"
    # One operation without end that no limit of ours interrupts, so the process is ended: lists that hold each other
    # twice over, 60 deep, are compared.
    nested = "{% set n = namespace(x=['a']) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}"
    nested += nested.replace("n.x", "o.x").replace("n =", "o =")
    slow = "{% if '3?' in messages[0].content %}" + nested + "{{ n.x == o.x }}{% endif %}"
    (tmp_path / "slow.jinja").write_text(slow + FAMILIES["chatml"].template)
    with Desk(model, str(tmp_path / "slow.jinja"), limit_seconds=2) as desk:
        with pytest.raises(Problem, match="did not answer within 2 s"):
            desk.xray(source, 4, 512)
        desk._limit_seconds = 60  # a busy machine may take more than two for what does end
        assert learnt(desk.xray(source, 1, 512)[0]) == "It is one.<|im_end|>"


def test_a_desk_for_a_folder_that_is_no_model_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    (tmp_path / "model").mkdir()
    with Desk(tmp_path / "model") as desk, pytest.raises(Problem, match="has no tokenizer"):
        desk.lengths(Source(tmp_path / "x.jsonl"), 1)
