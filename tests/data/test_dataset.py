"""From files to examples: the counts add up, the split is by content, and nothing is dropped in silence."""

from __future__ import annotations

import hashlib
import json
from functools import cache

import pytest
from chat_families import tokenizer_of

from engine.data.prepare.preparing import prepare
from engine.data.tokens.reference import describe
from engine.data.tokens.text_tokenizer import TextTokenizer
from engine.spec import DataSection
from profiles.problem import Problem


def chat(question, answer):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


CHATS = [chat(f"How much is {number} and 1?", f"It is {number + 1}.") for number in range(400)]


@cache
def text_tokenizer(family):
    return TextTokenizer(family, describe(tokenizer_of(family)))


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))


@pytest.fixture
def load(tmp_path):
    def load(train, held_out=None, progress=lambda progress: None, tokenizer="chatml", **settings):
        files = [write(tmp_path / f"train-{at}.jsonl", rows) for at, rows in enumerate(train)]
        held_out_file = write(tmp_path / "held-out.jsonl", held_out) if held_out is not None else None
        spec = DataSection(train=tuple(files), held_out=held_out_file, **{"sequence_length": 128, **settings})
        return prepare(spec, text_tokenizer(tokenizer), progress)

    return load


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def rows_of(examples):
    return [example.row for example in examples]


def texts_of(examples):
    return {tokenizer_of("chatml").decode(example.input_ids) for example in examples}


def test_every_row_is_trained_on_held_out_or_rejected(load, tmp_path):
    bad = ["{", {"reply": 1}, chat("q" * 400, "a")]
    progress = []
    data = load(
        [[*CHATS[:200], *bad], CHATS[200:]], progress=lambda step: progress.append((step.done_bytes, step.total_bytes))
    )
    assert sorted(rows_of(data.train) + rows_of(data.held_out)) == [*range(200), *range(203, 403)]
    assert [row.line for row in data.first_rejects] == [201, 202, 203]
    first, second = data.sources
    assert (first.first_row, first.rows, first.used, first.set_aside) == (0, 203, 200, 3)
    assert (second.first_row, second.rows, second.used, second.set_aside) == (203, 200, 200, 0)
    content = (tmp_path / "train-0.jsonl").read_bytes()
    assert (first.size_bytes, first.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert progress[-1] == (first.size_bytes + second.size_bytes,) * 2 and progress == sorted(progress)
    assert "3 rows are set aside; data/rejects.jsonl has the reasons" in data.notes

    data.write_rejects(tmp_path / "rejects.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert [(line["line"], line["reason"][:24]) for line in lines] == [
        (201, "is cut off in a value th"),
        (202, "has no fields that are k"),
        (203, "has its answer wholly cu"),
    ]
    assert all(line["path"] == first.path for line in lines)


def test_the_split_is_by_content_and_the_seed_alone(load):
    data = load([CHATS])
    held_out = texts_of(data.held_out)
    assert 8 <= len(held_out) <= 40  # 5 % of 400
    assert texts_of(load([CHATS[::-1]]).held_out) == held_out
    assert texts_of(load([CHATS[:250], CHATS[250:]]).held_out) == held_out
    assert texts_of(load([CHATS[:200]]).held_out) <= held_out
    assert texts_of(load([CHATS], split_seed=1).held_out) != held_out
    assert not load([CHATS], held_out_share=0.0).held_out


def test_copies_of_a_row_never_stand_on_both_sides(load):
    data = load([CHATS * 3])
    assert not texts_of(data.train) & texts_of(data.held_out)
    assert len(data.train) + len(data.held_out) == 1200
    assert "800 rows are an exact copy of another" in data.notes


def test_two_rows_are_enough_to_hold_one_out_and_one_row_is_trained_on(load):
    data = load([CHATS[:2]])
    assert (len(data.train), len(data.held_out)) == (1, 1)
    alone = load([CHATS[:1] * 5])
    assert (len(alone.train), len(alone.held_out)) == (5, 0)
    assert any(note.startswith("no rows are held out (all rows are the same)") for note in alone.notes)


def test_held_out_rows_can_be_asked_and_checked(load):
    data = load([CHATS[:50]], held_out=CHATS[50:80], train_on="everything")
    assert len(data.train) == 50 and sorted(rows_of(data.held_out)) == list(range(50, 80))
    assert sorted(row.row for row in data.held_out_rows) == list(range(50, 80))
    assert [row.row for row in data.held_out_rows[:5]] != [50, 51, 52, 53, 54]
    tokenizer = tokenizer_of("chatml")
    for row in data.held_out_rows:
        question, answer = (message["content"] for message in CHATS[row.row]["messages"])
        assert (row.prompt_text, row.expected) == (question, answer)
        asked = [message.as_dict() for message in row.prompt_messages]
        assert row.prompt_ids.tolist() == tokenizer.apply_chat_template(
            asked, add_generation_prompt=True, return_dict=False
        )


def test_rows_of_the_held_out_file_are_not_trained_on(load):
    train, held_out = CHATS[:300], [*CHATS[298:300], *CHATS[300:320]]
    data = load([train], held_out=held_out)
    assert len(data.train) == 298 and len(data.held_out) == 22
    assert [row.line for row in data.first_rejects] == [299, 300]
    assert data.first_rejects[0].reason.startswith("is also in the held-out file ")
    with pytest.raises(Problem, match=r"30 of 330 rows \(9.1%\) cannot be used.*line 271 is also in the held-out"):
        load([train], held_out=CHATS[270:300])


def test_more_bad_rows_than_allowed_stop_before_training(load):
    rows = [*CHATS[:97], {"text": ""}, {"prompt": "Q", "completion": " "}, "nonsense"]
    with pytest.raises(Problem) as caught:
        load([rows])
    assert caught.value.what == (
        "3 of 100 rows (3.0%) cannot be used, more than the 1.0% allowed: "
        "line 98 has an empty text: there is nothing to learn; "
        "line 99 has an empty completion: there is nothing to learn; "
        "line 100 is not JSON: it begins with n"
    )
    assert load([rows], max_rejected_share=0.03).reject_count == 3


def test_a_bad_second_file_is_told_before_the_first_is_tokenised(load, tmp_path):
    progress = []
    spec = DataSection(train=(write(tmp_path / "good.jsonl", CHATS), tmp_path / "absent.jsonl"))
    with pytest.raises(Problem, match="there is no such file"):
        prepare(spec, text_tokenizer("chatml"), progress.append)
    assert progress == []


def test_long_rows_are_counted_and_long_texts_learnt_in_parts(load):
    long_chat, long_text = chat("Q?", "one two three " * 200), {"text": "one two three " * 200}
    data = load([[*CHATS[:10], long_chat, long_text]], held_out_share=0.0)
    assert (data.cut_rows, data.sources[0].cut) == (1, 1)
    assert rows_of(data.train).count(11) > 5
    assert data.train_tokens == sum(len(example) for example in data.train)
    assert data.target_tokens == sum(int(example.trained.sum()) for example in data.train)
    assert data.notes[:2] == (
        "1 row is longer than 128 tokens, cut at the end",
        "1 row is of text longer than 128 tokens, learnt in several parts",
    )


def test_a_template_that_rejects_all_rows_stops_the_run_with_its_own_words(load):
    rows = [{"messages": [{"role": "system", "content": "S"}, *row["messages"]]} for row in CHATS[:20]]
    with pytest.raises(Problem, match="none of its 20 rows can be used: line 1 is rejected by the chat template: Sys"):
        load([rows], tokenizer="gemma")


def test_what_the_template_leaves_out_is_told(load):
    thought = chat("Q?", "<think>\nwhy\n</think>\n\none")
    rows = [*CHATS[:20], {"messages": [*thought["messages"], *CHATS[30]["messages"]]}]
    notes = load([rows], tokenizer="thinking").notes
    assert notes == ("the chat template leaves out or changes the text of assistant messages in 1 rows",)


def test_loading_twice_gives_the_same_tokens(load):
    one, other = load([CHATS]), load([CHATS])
    for first, second in zip([*one.train, *one.held_out], [*other.train, *other.held_out], strict=True):
        assert first.input_ids.tolist() == second.input_ids.tolist()
        assert first.trained.tolist() == second.trained.tolist()
    assert [row.row for row in one.held_out_rows] == [row.row for row in other.held_out_rows]
