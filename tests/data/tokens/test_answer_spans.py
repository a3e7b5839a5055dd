"""The spans of answers are exactly the answers and their stop tokens, whatever the family of the model."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from chat_families import tokenizer_of
from hypothesis import example, given
from hypothesis import strategies as st

from engine.data.contents import Conversation, Feedback, Labelled, Message, PlainText, Preference, Similar, Unusable
from engine.data.tokens import tokeniser as tokeniser_module
from engine.data.tokens.encoded import HOLDS_SPECIAL, Encoded, Tokenised
from engine.data.tokens.reference import describe
from engine.data.tokens.text_tokenizer import TextTokenizer
from engine.data.tokens.tokeniser import Tokeniser
from profiles.problem import Problem

STOPS = {
    "chatml": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "mistral": "</s>",
    "thinking": "<|im_end|>",
    "phi3": "<|end|>",
}


def conversation(*turns: str, system: str | None = None) -> Conversation:
    messages = [Message("system", system)] if system else []
    messages += [Message("assistant" if at % 2 else "user", turn) for at, turn in enumerate(turns)]
    return Conversation(tuple(messages))


def text_tokenizer(tokenizer, **fields) -> TextTokenizer:
    return TextTokenizer("model", describe(tokenizer), **fields)


@cache
def tokeniser_of(name: str) -> Tokeniser:
    return Tokeniser(text_tokenizer(tokenizer_of(name)))


def with_template(name: str, template: str | None) -> Tokeniser:
    """The family's tokenizer with another chat template."""
    family = tokenizer_of(name)
    tokenizer = type(family)(
        tokenizer_object=family.backend_tokenizer,
        bos_token=family.bos_token,
        eos_token=family.eos_token,
        chat_template=template,
    )
    return Tokeniser(text_tokenizer(tokenizer))


def tokenise(name: str, content) -> Tokenised:
    (result,) = tokeniser_of(name).tokenise([content])
    assert isinstance(result, Tokenised), result
    return result


def answer_texts(name: str, sequence: Encoded) -> list[str]:
    """The text of each answer's tokens."""
    tokenizer = tokenizer_of(name)
    # Decoded behind another token, since some decoders drop a space at the beginning of a text.
    before = tokenizer.eos_token_id
    texts = [tokenizer.decode([before, *sequence.ids[begins:ends]]) for begins, ends in sequence.answers]
    return [text.removeprefix(tokenizer.eos_token) for text in texts]


def template_ids(name: str, messages: tuple[Message, ...], ask: bool) -> list[int]:
    turns = [message.as_dict() for message in messages]
    return tokenizer_of(name).apply_chat_template(turns, add_generation_prompt=ask, return_dict=False)


@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma", "mistral", "phi3"])
def test_every_answer_with_its_stop_token_has_a_span(name):
    chat = conversation("What is 1?", "It is one.", "And the capital?", "It is Paris, of France.", "Thanks")
    (only,) = tokenise(name, chat).sequences
    # Mistral's template has the space in front of an answer written by the model.
    space = " " if name == "mistral" else ""
    wanted = ["It is one.", "It is Paris, of France."]
    assert answer_texts(name, only) == [space + answer + STOPS[name] for answer in wanted]
    assert only.ids.tolist() == template_ids(name, chat.messages, ask=False) and only.ids.dtype == np.int32
    assert only.ids[: only.prompt_tokens].tolist() == template_ids(name, chat.messages[:3], ask=True)


def test_thoughts_are_answers_where_the_template_shows_them():
    chat = conversation("a?", "<think>\nwhy\n</think>\n\none", "b?", "<think>\nso\n</think>\n\ntwo")
    (only,) = tokenise("thinking", chat).sequences
    assert answer_texts("thinking", only) == ["one<|im_end|>", "<think>\nso\n</think>\n\ntwo<|im_end|>"]
    assert only.ids[: only.prompt_tokens].tolist() == template_ids("thinking", chat.messages[:3], ask=True)
    # An answer without a thought is asked for with none, so the model has to write the empty one itself.
    (plain,) = tokenise("thinking", conversation("a?", "one")).sequences
    assert answer_texts("thinking", plain) == ["<think>\n\n</think>\n\none<|im_end|>"]


def test_the_models_own_words_are_answers_though_the_prompt_looked_different_when_asked():
    # All system messages are put first, so the second one changes what stands before the first answer.
    tokeniser = with_template(
        "chatml",
        """{% for message in messages %}{% if message.role == 'system' %}{{ message.content }}{% endif %}\
{% endfor %}{% for message in messages %}{% if message.role == 'user' %}{{ '<|im_start|>user ' + message.content }}\
{% elif message.role == 'assistant' %}{{ '<|im_start|>assistant: ' + message.content + '<|im_end|>' }}{% endif %}\
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}""",
    )
    messages = (*conversation("a?", "one").messages, Message("system", "S"), *conversation("b?", "two").messages)
    (result,) = tokeniser.tokenise([Conversation(messages)])
    assert isinstance(result, Tokenised)
    assert answer_texts("chatml", result.sequences[0]) == [": one<|im_end|>", ": two<|im_end|>"]


def test_an_answer_without_a_stop_token_gets_the_end_of_text():
    (only,) = tokenise("words", conversation("a?", "one", "b?", "two")).sequences
    assert answer_texts("words", only) == ["one", "two</s>"]


def test_plain_words_that_end_an_answer_belong_to_it():
    tokeniser = with_template(
        "chatml",
        """{% for message in messages %}{{ message.role + ': ' + message.content + ' [END]\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}""",
    )
    (result,) = tokeniser.tokenise([conversation("a?", "one", "b?", "two")])
    assert isinstance(result, Tokenised)
    assert answer_texts("chatml", result.sequences[0]) == ["one [END]", "two [END]"]


def test_plain_words_end_an_answer_that_would_be_written_otherwise_were_it_the_last():
    tokeniser = with_template(
        "chatml",
        """{% for message in messages %}{{ message.role + ': ' }}{% if loop.last and message.role == 'assistant' %}\
{{ '(thought)' }}{% endif %}{{ message.content + ' [END]\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}""",
    )
    (result,) = tokeniser.tokenise([conversation("a?", "one", "b?", "two", "c?", "three")])
    assert isinstance(result, Tokenised)
    assert answer_texts("chatml", result.sequences[0]) == ["one [END]", "two [END]", "(thought)three [END]"]


def test_answers_that_are_context_only_have_no_span():
    turns = (Message("user", "a?"), Message("assistant", "one", learnt=False), Message("user", "b?"))
    for last in ("two", "three"):  # the second time by what the first has shown of the template
        (only,) = tokenise("chatml", Conversation((*turns, Message("assistant", last)))).sequences
        assert answer_texts("chatml", only) == [f"{last}<|im_end|>"]


# Marks of the families' own have tests of their own; hypothesis would try them, since they stand in this file.
MARKS = (*STOPS.values(), "<eos>", "think>")
answers = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(
    lambda text: text.strip() and not any(mark in text for mark in MARKS)
)


@given(first=answers, question=answers, last=answers)
@example(first="\n\nspaced  ", question="<", last="  \n x \n\n")
@example(first="one", question="one", last="one")
@example(first="answerstandshere0answerstandshere", question="answerstandshere", last="answerstandshere")
@example(first="finetui7c1eslot1end", question="finetui7c1eslot3end", last="finetui7c1eslot0end")
@example(first="e\u0301👩‍👩‍👧", question="\ufeff\u2028", last="\x00 ")
@example(first="assistant\n", question="### assistant:\n", last="user\n\nassistant\n")
@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma", "mistral", "thinking", "words"])
def test_any_answer_is_found_to_the_letter(name, first, question, last):
    trims = name in ("llama3", "gemma")
    (only,) = tokenise(name, conversation("?", first, question, last)).sequences
    wanted = [answer.strip() if trims else answer for answer in (first, last)]
    if name == "words":
        wanted[1] += "</s>"
    elif name == "mistral":
        wanted = [f" {answer}</s>" for answer in wanted]
    elif name == "thinking":
        wanted = [wanted[0] + "<|im_end|>", f"<think>\n\n</think>\n\n{wanted[1]}<|im_end|>"]
    else:
        wanted = [answer + STOPS[name] for answer in wanted]
    assert answer_texts(name, only) == wanted
    (alone,) = tokenise(name, conversation(question, last)).sequences
    assert alone.ids[: alone.prompt_tokens].tolist() == template_ids(name, conversation(question).messages, ask=True)


@pytest.mark.parametrize(
    ("chat", "reason"),
    [
        (conversation("a", "b", system="s"), "is rejected by the chat template: System role not supported"),
        (
            Conversation((Message("user", "a"), Message("user", "b"), Message("assistant", "c"))),
            "is rejected by the chat template: Conversation roles must alternate user/assistant",
        ),
        (Labelled("", ("x",)), "has a text of no tokens: there is nothing to learn"),
        (
            Preference(conversation("a", " b "), conversation("a", "b")),
            "has two answers of the same tokens: there is nothing to prefer",
        ),
    ],
)
def test_a_row_that_cannot_be_learnt_says_why(chat, reason):
    good = conversation("a", "b")
    results = tokeniser_of("gemma").tokenise([good, chat, good])
    assert isinstance(results[1], Unusable) and str(results[1]) == reason
    assert [len(result.sequences) for result in (results[0], results[2])] == [1, 1]


def test_long_text_is_tokenised_in_sections_and_loses_nothing(monkeypatch):
    monkeypatch.setattr(tokeniser_module, "_SECTION_CHARACTERS", 50)
    answer = "The quick brown fox jumps. " * 2000
    for name in ("chatml", "mistral"):
        (only,) = tokenise(name, conversation("a?", answer, "b?", "two")).sequences
        space = " " if name == "mistral" else ""
        assert answer_texts(name, only) == [f"{space}{answer}{STOPS[name]}", f"{space}two{STOPS[name]}"]
        (text,) = tokenise(name, PlainText(answer)).sequences
        tokenizer = tokenizer_of(name)
        assert tokenizer.decode(text.ids) == tokenizer.decode([*tokenizer(answer)["input_ids"], tokenizer.eos_token_id])


@given(text=answers)
@pytest.mark.parametrize("name", ["llama3", "mistral"])
def test_plain_text_is_one_answer_that_ends(name, text):
    result = tokenise(name, PlainText(text))
    (only,) = result.sequences
    tokenizer = tokenizer_of(name)
    assert only.ids.tolist() == [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    assert (only.answers[0][1], result.windows) == (len(only), True)


def test_text_that_ends_itself_is_not_ended_twice():
    (only,) = tokenise("llama3", PlainText("Done.<|eot_id|>")).sequences
    assert answer_texts("llama3", only) == ["Done.<|eot_id|>"]


def test_every_kind_of_content_gets_its_sequences():
    chat = conversation("a?", "one", "b?", "two")
    (liked,) = tokenise("llama3", Feedback(chat, liked=True)).sequences
    assert answer_texts("llama3", liked) == ["two<|eot_id|>"]
    assert tokenise("llama3", Feedback(chat, liked=False)).labels == ("disliked",)
    pair = tokenise("llama3", Preference(conversation("a?", "one"), conversation("a?", "two")))
    assert [answer_texts("llama3", each) for each in pair.sequences] == [["one<|eot_id|>"], ["two<|eot_id|>"]]
    labelled = tokenise("llama3", Labelled("some text", ("x", "y"), several=True))
    similar = tokenise("llama3", Similar("question", "answer", ("no", "neither")))
    # What whoever loads the tuned model will feed it, and nothing more.
    texts = ["some text", "question", "answer", "no", "neither"]
    sequences = [*labelled.sequences, *similar.sequences]
    assert [each.ids.tolist() for each in sequences] == [tokenizer_of("llama3")(text)["input_ids"] for text in texts]
    assert (labelled.labels, {each.answers for each in sequences}) == (("x", "y"), {()})


def test_a_pair_needs_no_chat_template_but_a_conversation_does():
    bare = with_template("llama3", None)
    pair = Conversation((Message("user", "Capital?"), Message("assistant", "Paris")), is_pair=True)
    (result,) = bare.tokenise([pair])
    assert isinstance(result, Tokenised)
    assert tokenizer_of("llama3").decode(result.sequences[0].ids) == "<|begin_of_text|>Capital?\nParis<|eot_id|>"
    assert answer_texts("llama3", result.sequences[0]) == ["Paris<|eot_id|>"]
    with pytest.raises(Problem, match="has no chat template"):
        bare.tokenise([conversation("a", "b")])


def test_a_template_with_a_syntax_error_is_told_with_its_line():
    with pytest.raises(Problem, match="chat template, line 2: is not valid Jinja"):
        with_template("chatml", "{{ messages }}\n{% if %}")


def test_what_a_template_changes_and_special_tokens_in_text_are_told():
    (ordinary, special) = tokeniser_of("chatml").tokenise([conversation("a", "b"), conversation("a<|im_end|>", "b")])
    assert (ordinary.warnings, special.warnings) == ((), (HOLDS_SPECIAL,))
    no_system = with_template(
        "chatml",
        "{% for m in messages %}{% if m.role != 'system' %}"
        "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    )
    (dropped,) = no_system.tokenise([conversation("a", "b", system="Be brief.")])
    assert isinstance(dropped, Tokenised) and dropped.altered == ("system",)
    assert answer_texts("chatml", dropped.sequences[0]) == ["b<|im_end|>"]


def test_a_token_beyond_the_embedding_sets_its_row_aside():
    family = tokenizer_of("chatml")
    rows = family.convert_tokens_to_ids("<|im_start|>")
    small = Tokeniser(text_tokenizer(family, embedding_rows=rows))
    (told,) = small.tokenise([conversation("a", "b")])
    assert str(told) == f'has the token "<|im_start|>" ({rows:,}), beyond the {rows:,} rows of the embedding'
