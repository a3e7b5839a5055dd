"""How a source is understood: decided once from its first rows and what a person said, and asked where unclear."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from engine.data.contents import Conversation, Feedback, Labelled, Message, PlainText, Similar, Unusable
from engine.data.shapes import Reading, Recogniser, UnclearColumns, objective_for, reading_of, recognise, roles_of
from engine.data.shapes.parts import PARTS
from engine.data.source import Source
from engine.data.tokens import time_limit
from profiles.problem import Problem

PATH = Path("/data/rows.csv")


def source(**said: Any) -> Source:
    return Source(PATH, **said)


def read(rows: list[dict[str, Any]], **said: Any) -> list[Any]:
    """What becomes of each row under the reading of them all: its content, or the reason."""
    reading = pickle.loads(pickle.dumps(reading_of(source(**said), rows)))
    recogniser = Recogniser(source(**said), reading)
    found: list[Any] = []
    for row in rows:
        try:
            found.append(recogniser.recognise(row).content)
        except Unusable as reason:
            found.append(str(reason))
    return found


def pair(question: str, answer: str) -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)), is_pair=True)


def test_columns_can_be_pointed_at() -> None:
    row = {"id": 1, "subject": "S", "body": "Q", "fix": "A", "meta": {"who": "W"}}
    assert read([row], columns={"question": "body", "answer": "fix"}) == [pair("Q", "A")]
    assert read([row], columns={"question": "body", "answer": "fix", "further": "subject"}) == [pair("Q\n\nS", "A")]
    assert read([row], columns={"text": "body"}) == [PlainText("Q")]
    assert read([row], columns={"text": "body", "label": "meta.who"}) == [Labelled("Q", ("W",))]
    assert read([row], columns={"anchor": "subject", "positive": "body", "negative": "fix, meta.who"}) == [
        Similar("S", "Q", ("A", "W"))
    ]
    # One part is enough where the names tell the rest.
    assert read([{"question": "Q", "answer_a": "A", "answer_b": "B"}], columns={"answer": "answer_b"}) == [
        pair("Q", "B")
    ]
    judged = {"question": "Q", "reply": "A", "ok": "no"}
    assert read([judged], columns={"liked": "ok"}) == [Feedback(pair("Q", "A"), False)]
    assert reading_of(source(columns={"liked": "ok"}), [judged]).columns == {
        "question": "question",
        "answer": "reply",
        "liked": "ok",
    }


def test_the_shape_can_be_said() -> None:
    row = {"question": "Q", "answer": "A", "label": "b"}
    assert read([row], shape="pair") == [pair("Q", "A")]
    assert read([row], shape="similar") == [Similar("Q", "A")]
    assert read([row], shape="labelled") == [Labelled("Q", ("b",))]
    chosen = {"prompt": "Q", "chosen": "A", "rejected": "B"}
    assert read([chosen], shape="pair", columns={"answer": "chosen"}) == [pair("Q", "A")]


def test_several_columns_of_ones_and_zeros_are_a_class_each() -> None:
    rows = [{"comment": "T", "rude": "1", "spam": 0}, {"comment": "U", "rude": 0, "spam": False}]
    said = {"text": "comment", "label": "rude, spam"}
    assert read(rows, columns=said) == [Labelled("T", ("rude",), True), Labelled("U", (), True)]


def test_whether_labels_are_one_or_several_is_decided_for_all_rows() -> None:
    many = [{"text": "T", "labels": "a|b"}, {"text": "U", "labels": "c"}, {"text": "V", "labels": ""}]
    assert [each.labels for each in read(many)] == [("a", "b"), ("c",), ()]
    assert reading_of(source(), many).several
    one = [{"text": "T", "labels": "New York"}, {"text": "U", "labels": "Rome"}]
    assert read(one) == [Labelled("T", ("New York",)), Labelled("U", ("Rome",))]
    single = [{"text": "T", "label": "a; b"}]
    assert read(single) == [Labelled("T", ("a; b",))]


def test_the_scale_of_scores_is_found_from_all_rows() -> None:
    rows = [{"sentence1": "a", "sentence2": "b", "score": score} for score in ("4.6", 1, 4, None)]
    like = Similar("a", "b")
    found = read(rows)
    assert found[0] == found[2] == like
    assert found[1] == "has a score of 1: only pairs of 4 and more (of 5) are alike enough to learn"
    assert found[3].startswith("has null in score; wanted a number")


def test_rows_of_another_kind_than_most_are_set_aside() -> None:
    rows = [{"prompt": "Q", "completion": "A", "label": True}] * 2
    rows += [{"prompt": "Q", "completion": "A", "label": None}, {"text": "T"}]
    found = read(rows)
    assert isinstance(found[0], Feedback)
    assert found[2].startswith("has null in label that is neither thumbs up nor down")
    assert found[3] == ("holds plain text (text), and most rows of this file hold answers with thumbs up or down")
    # Further columns do not make a row of another kind, nor are two likely answers a question any more.
    labelled = [{"text": "T", "topic": "a"}] * 2 + [{"text": "T", "topic": "b", "url": "u", "words": 3}]
    assert read(labelled)[2] == Labelled("T", ("b",))
    assert read([{"question": "Q", "answer_a": "A"}] * 2 + [{"question": "Q", "answer_a": "A", "answer_b": "B"}])[
        2
    ] == pair("Q", "A")
    assert read([{"prompt": "Q", "completion": "A"}] * 2 + [{"prompt": "Q", "completion": "A", "label": False}])[
        2
    ].startswith("holds answers with thumbs up or down (prompt, completion, label), and most rows")
    # What one objective learns from may stand together.
    assert read([{"prompt": "Q", "completion": "A"}] * 2 + [{"text": "T"}])[2] == PlainText("T")


def test_templates_make_a_shape_of_ones_own() -> None:
    row = {"stem": "Q", "A": "yes", "key": "A", "odd name": "N"}
    said = {"prompt_template": "{{ stem }} {{ row['odd name'] }}", "answer_template": "{{ row[key] | upper }}"}
    assert read([row], **said) == [pair("Q N", "YES")]
    assert read([row], answer_template="{{ stem }}!") == [PlainText("Q!")]
    assert reading_of(source(**said), [row]) == Reading("conversation", "template", {})
    assert recognise(row, source(answer_template="{{ stem }}")).unused == ("A", "key", "odd name")
    for template, reason in (
        ("{{ steam }}", "'steam' is undefined"),
        ("{{ '' }}", "makes answer_template write nothing"),
        ("{{ stem.__class__.__mro__ }}", "answer_template"),
        ("{{ raise_exception('no key') }}", "is rejected by answer_template: no key"),
    ):
        with pytest.raises(Unusable, match="answer_template") as refused:
            recognise(row, source(answer_template=template))
        assert reason in str(refused.value)
    with pytest.raises(Problem, match="line 2"):
        reading_of(source(answer_template="\n{% if %}"), [row])
    with pytest.raises(Problem, match="answer_template"):
        reading_of(source(shape="template"), [row])


def test_a_template_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    recogniser = Recogniser(source(answer_template=endless))
    monkeypatch.setattr(time_limit, "LIMIT_SECONDS", 0.3)  # for rows; a busy machine takes longer to read a template
    with pytest.raises(Unusable, match="busy"):
        recogniser.recognise({"a": "b"})
    with pytest.raises(Problem, match="seconds a row"):
        recogniser.recognise({"a": "b"})


@pytest.mark.parametrize(
    ("rows", "said", "what", "fix"),
    [
        (
            [{"question": "Q", "answer_a": "A", "answer_b": "B"}],
            {},
            "does not tell which column is the answer: `answer_a` or `answer_b`",
            'columns = {answer = "answer_a"}',
        ),
        ([{"foo": "Q", "bar": "A"}], {}, "no columns that are known (columns: foo, bar)", 'question = "foo"'),
        ([{"foo": "Q", "bar": "A"}], {"shape": "preference"}, "surely the chosen or the rejected", 'chosen = "COLUMN"'),
    ],
)
def test_a_person_is_asked_where_nothing_tells(rows: Any, said: Any, what: str, fix: str) -> None:
    with pytest.raises(UnclearColumns) as asked:
        reading_of(source(**said), rows)
    assert asked.value.where == str(PATH) and what in asked.value.what and fix in asked.value.fix
    assert 'data.train = [{path = "/data/rows.csv", shape = ' in asked.value.fix


@pytest.mark.parametrize(
    ("said", "where", "what", "fix"),
    [
        ({"columns": {"question": "aks"}}, "columns.question", "`aks`", "The columns: ask, reply."),
        ({"columns": {"nonsense": "ask"}}, "columns.nonsense", "no part of any shape", "question"),
        ({"shape": "pair", "columns": {"questions": "ask"}}, "columns.questions", "no part", "Did you mean question?"),
    ],
)
def test_what_a_person_said_is_checked(said: Any, where: str, what: str, fix: str) -> None:
    with pytest.raises(Problem) as told:
        reading_of(source(**said), [{"ask": "Q", "reply": "A"}])
    assert where in told.value.where and what in told.value.what and fix in told.value.fix


def test_a_pointed_column_that_a_row_lacks_is_told_of_in_that_row() -> None:
    rows = [{"ask": "Q", "fix": "A"}, {"question": "Q", "answer": "A"}]
    found = read(rows, columns={"question": "ask", "answer": "fix"})
    assert found == [pair("Q", "A"), "has no `ask`, which is to be the question (found: question, answer)"]


def test_every_shape_has_parts_in_words_and_every_kind_an_objective() -> None:
    for shape in PARTS:
        for part in roles_of(shape):
            assert part.sentence.endswith(".")
    assert objective_for("conversation") == objective_for("text") == "next_token"
    assert objective_for("labelled") == "classification"
    grouped = recognise({"text": "T", "who": {"id": 7}, "lang": "de"}, source(), group_by="who", stratify_by="lang")
    assert grouped.groups == ('{"id": 7}', "de") and not grouped.unused
