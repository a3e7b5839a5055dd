"""A model's tokenizer without transformers is the one transformers reads."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from chat_families import tokenizer_of

from engine.data.contents import Conversation, Message
from engine.data.tokens import loading
from engine.data.tokens.loading import load_text_tokenizer
from engine.data.tokens.reference import describe, describe_folder
from engine.data.tokens.templates import KNOWN_TEMPLATES, suggest_template
from engine.data.tokens.text_tokenizer import TextTokenizer
from engine.data.tokens.tokeniser import Tokeniser
from profiles.problem import Problem

TEXT = "Dear Ada, it's 12 o'clock; naïve 語 👩‍👩‍👧 <|im_end|>\n\n  x"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tokenizer and a config.json, and a cache of its own."""
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    tokenizer_of("chatml").save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "qwen2", "vocab_size": 500}))
    return tmp_path / "model"


def test_it_is_read_once_by_a_child_and_then_from_the_cache(model: Path, monkeypatch: pytest.MonkeyPatch):
    first = load_text_tokenizer(model)
    monkeypatch.setattr(loading, "_ask_child", lambda path: pytest.fail("the cache was not used"))
    again = load_text_tokenizer(model)
    reference = tokenizer_of("chatml")
    for each in (first, again, pickle.loads(pickle.dumps(again))):
        assert each.ids([TEXT]) == [reference(TEXT, add_special_tokens=False)["input_ids"]]
        assert each.sha256 == first.sha256
    assert (first.eos_id, first.embedding_rows) == (reference.eos_token_id, 500)
    # Another template makes other ids, and so does another file.
    assert load_text_tokenizer(model, "plain").sha256 != first.sha256
    (model / "chat_template.jinja").write_text("{{ messages[0].content }}")
    changed = load_text_tokenizer(model, describe=describe_folder)
    assert (changed.sha256 != first.sha256, changed.chat_template) == (True, "{{ messages[0].content }}")


def test_nothing_heavy_is_imported(model: Path):
    load_text_tokenizer(model)
    code = (
        "import sys; from pathlib import Path; from engine.data.tokens.loading import load_text_tokenizer; "
        "from engine.data.tokens.tokeniser import Tokeniser; import engine.data.tokens.desk; "
        f"Tokeniser(load_text_tokenizer(Path({str(model)!r}))); "
        "print(*({'torch', 'transformers', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda model: (model / "tokenizer.json").unlink(), "has no tokenizer"),
        (lambda model: (model / "tokenizer.json").write_text('{"version": '), "tokenizer"),
        (lambda model: (model / "tokenizer.json").write_bytes(b"\x00" * 64), "tokenizer"),
    ],
)
def test_a_tokenizer_that_cannot_be_read_is_a_problem(model: Path, spoil, told: str):
    spoil(model)
    with pytest.raises(Problem, match=told):
        load_text_tokenizer(model, describe=describe_folder)


def test_a_vocabulary_beyond_the_embedding_is_noted(model: Path):
    (model / "config.json").write_text(json.dumps({"model_type": "qwen2", "vocab_size": 400}))
    (note,) = load_text_tokenizer(model, describe=describe_folder).notes
    assert "the model's embedding 400 rows" in note


def test_a_template_is_chosen_by_name_or_by_path(model: Path, tmp_path: Path):
    known = load_text_tokenizer(model, "llama3", describe_folder)
    assert known.chat_template == KNOWN_TEMPLATES["llama3"].text
    assert "no special tokens for: learnt as plain text" in known.notes[0]
    own = tmp_path / "own.jinja"
    own.write_text("{{ messages[0].content }}")
    assert load_text_tokenizer(model, str(own), describe_folder).chat_template == "{{ messages[0].content }}"
    for choice, told in (("chatnl", "is no chat template that finetui knows"), ("no.jinja", "cannot be read")):
        with pytest.raises(Problem, match=told):
            load_text_tokenizer(model, choice, describe_folder)


def test_the_suggestion_follows_the_special_tokens():
    assert suggest_template(["<|im_start|>", "<|im_end|>", "<s>"])[0] == "chatml"
    assert suggest_template(["<bos>", "<start_of_turn>", "<end_of_turn>"])[0] == "gemma"
    assert suggest_template(["<s>", "</s>"])[0] == "plain"


def test_what_is_trained_with_a_chosen_template_is_saved_with_it(model: Path, tmp_path: Path):
    from engine.methods.loading import load_tokenizer

    load_tokenizer(model, "plain").save_pretrained(tmp_path / "out")
    assert load_tokenizer(tmp_path / "out").chat_template == KNOWN_TEMPLATES["plain"].text


@pytest.mark.parametrize("name", ["chatml", "gemma", "mistral"])
def test_pieces_read_as_the_text(name: str):
    tokenizer = TextTokenizer(name, describe(tokenizer_of(name)))
    text = "Dear Ada,\n\n  it is\tParis. 1 2 3"
    assert "".join(tokenizer.pieces(tokenizer.ids([text])[0])).removeprefix(" ") == text
    letter = "".join(tokenizer.pieces(tokenizer.ids(["👩"])[0])).strip()
    assert letter == ("\\xF0\\x9F\\x91\\xA9" if name != "gemma" else letter) and letter.startswith("\\xF0")


def test_a_model_with_a_template_for_tools_uses_it_for_tools_alone(model: Path):
    for path in model.glob("chat_template*"):
        path.unlink()
    config = json.loads((model / "tokenizer_config.json").read_text())
    plain, tools = ("{% for m in messages %}" + word + "{{ m.content }}{% endfor %}" for word in ("a:", "t:"))
    templates = [{"name": "default", "template": plain}, {"name": "tool_use", "template": tools}]
    (model / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": templates}))
    tokenizer = load_text_tokenizer(model, describe=describe_folder)
    turns = (Message("user", "x"), Message("assistant", "y"))
    results = Tokeniser(tokenizer).tokenise(
        [Conversation(turns), Conversation(turns, tools='[{"function": {"name": "f"}}]')]
    )
    assert [tokenizer.decode(each.sequences[0].ids) for each in results] == ["a:xa:y<|im_end|>", "t:xt:y<|im_end|>"]
