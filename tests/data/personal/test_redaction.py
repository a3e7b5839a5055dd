"""Personal data masked or replaced in every kind of content."""

import json
import stat
import subprocess
import sys

import pytest

from engine.data.contents import Conversation, Feedback, Labelled, Message, PlainText, Preference, Similar
from engine.data.personal.accounts import is_card, is_iban
from engine.data.personal.finder import find_personal
from engine.data.personal.key import key_path, pseudonym_key
from engine.data.personal.redaction import Redactor
from profiles.problem import Problem

TEXT = "Maria Novak wrote from maria@mail.com."
MASKED = "[NAME] wrote from [EMAIL]."
KEY = b"k" * 32


def talk(*texts):
    roles = ("user", "assistant")
    return Conversation(tuple(Message(roles[index % 2], text) for index, text in enumerate(texts)))


@pytest.mark.parametrize(
    ("content", "masked", "places"),
    [
        (PlainText(TEXT), PlainText(MASKED), 2),
        (talk(TEXT, "Yes."), talk(MASKED, "Yes."), 2),
        (Feedback(talk(TEXT, TEXT), True), Feedback(talk(MASKED, MASKED), True), 4),
        (Preference(talk(TEXT, "a"), talk(TEXT, "b")), Preference(talk(MASKED, "a"), talk(MASKED, "b")), 2),
        (Labelled(TEXT, ("Maria Novak",)), Labelled(MASKED, ("Maria Novak",)), 2),
        (Similar(TEXT, "x", (TEXT,)), Similar(MASKED, "x", (MASKED,)), 4),
    ],
)
def test_every_kind_of_content_is_masked_and_counted(content, masked, places):
    changed, counts = Redactor("mask").apply(content)

    assert changed == masked
    assert counts.total() == places and set(counts) == {"name", "email"}


def test_what_holds_nothing_personal_stays_the_very_object():
    content = talk("How deep is the sea?", "Some 3,700 metres.")

    assert Redactor("mask").apply(content)[0] is content
    assert Redactor("leave").apply(PlainText(TEXT))[0].text == TEXT


def test_arguments_of_tool_calls_are_masked_and_their_names_stay():
    call = {"tool_calls": [{"function": {"name": "send", "arguments": {"to": "maria@mail.com", "copies": 2}}}]}
    content = Conversation((Message("user", "Send it."), Message("assistant", "", more=json.dumps(call))))

    changed, counts = Redactor("mask").apply(content)

    more = json.loads(changed.messages[1].more)
    assert more["tool_calls"][0]["function"] == {"name": "send", "arguments": {"to": "[EMAIL]", "copies": 2}}
    assert counts == {"email": 1}


def test_who_was_named_in_full_is_known_by_one_name_in_the_same_row_only():
    redactor = Redactor("mask")

    row, _ = redactor.apply(talk("Maria Novak called.", "Ask Novak again; Novakova is another, Maria too."))
    other, _ = redactor.apply(PlainText("Maria is a name."))

    assert row.messages[1].content == "Ask [NAME] again; Novakova is another, [NAME] too."
    assert other.text == "Maria is a name."


def test_both_answers_of_a_preference_keep_one_prompt_whoever_is_named_in_them():
    asked = "What of Maria?"
    content = Preference(talk(asked, "Maria Novak called."), talk(asked, "Ask Maria."))

    changed, _ = Redactor("mask").apply(content)

    assert changed.chosen.messages[:-1] == changed.rejected.messages[:-1]
    assert changed.rejected.messages[-1].content == "Ask [NAME]."


@pytest.mark.parametrize("name", ["Maria  Novak", "Maria\nNovak", "Dr. , Novak", "Novak,, Maria", " "])
def test_a_name_may_be_written_with_any_spaces_and_commas(name):
    assert name not in Redactor("pseudonymise", KEY)._pseudonyms.name(name) or not name.strip()


def test_pseudonyms_are_the_same_in_every_row_and_run_and_depend_on_the_key():
    first, second = Redactor("pseudonymise", KEY), Redactor("pseudonymise", KEY)
    one, _ = first.text("Maria Novak, maria@mail.com")
    other, _ = second.text("maria@mail.com is how Novak, that is Maria Novak, is reached")
    name, email = one.split(", ")

    assert name in other and email in other and name.split()[1] + ", that is" in other
    assert name != "Maria Novak" and email != "maria@mail.com"
    assert Redactor("pseudonymise", b"x" * 32).text("Maria Novak, maria@mail.com")[0] != one


@pytest.mark.parametrize(
    "text",
    [
        "anna@mail.com",
        "+49 30 1234567",
        "(415) 555-0123",
        "DE89 3704 0044 0532 0130 00",
        "4111 1111 1111 1111",
        "529.982.247-25",
        "My passport number C01234567",
        "born on 12 March 1985",
        "Logged in from 85.214.132.117",
        "I live at 221B Baker Street, London NW1 6XE",
        "password: hunter42!x",
        "Olga Petrova",
        "Дмитрий Соколов",
    ],
)
def test_a_pseudonym_is_of_the_same_kind_and_another_value(text):
    (place,) = find_personal(text)

    changed, counts = Redactor("pseudonymise", KEY).text(text)

    assert counts == {place.kind: 1}
    value, made = text[place.start : place.end], changed[place.start :]
    assert value not in changed
    if place.kind in ("iban", "card"):
        assert {"iban": is_iban, "card": is_card}[place.kind](made)
    if place.kind in ("phone", "national_id", "card", "iban"):
        assert [each for each in made if not each.isalnum()] == [each for each in value if not each.isalnum()]
    if place.kind in ("name", "email", "phone", "iban", "card"):
        assert find_personal(changed)[0].kind == place.kind


def test_the_key_is_made_once_kept_private_and_survives_processes_that_make_it_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    program = "from engine.data.personal.key import pseudonym_key; print(pseudonym_key().hex())"
    children = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(4)]
    keys = {child.communicate()[0] for child in children}

    assert keys == {pseudonym_key().hex().encode() + b"\n"}
    assert stat.S_IMODE(key_path().stat().st_mode) == 0o600
    assert sorted(path.name for path in key_path().parent.iterdir()) == ["pseudonyms.key"]


def test_a_damaged_key_is_told_and_not_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    key_path().write_bytes(b"short")

    with pytest.raises(Problem, match="has 5 bytes where a key has 32"):
        pseudonym_key()

    assert key_path().read_bytes() == b"short"
