"""The learnt tokens are exactly the answers and their stop tokens, whatever the family of the model."""

from __future__ import annotations

import numpy as np
import pytest
from chat_families import tokenizer_of
from hypothesis import example, given
from hypothesis import strategies as st

from engine.data import tokenise as tokenise_module
from engine.data.contents import Conversation, Message, PlainText, Unusable
from engine.data.tokenise import Example, Tokenised, Tokeniser
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


def tokenise(name: str, content: Conversation | PlainText, length: int = 4096, train_on="answers") -> Tokenised:
    (result,) = Tokeniser(tokenizer_of(name), length, train_on).tokenise([(7, content)])
    assert isinstance(result, Tokenised), result
    return result


def learnt_texts(name: str, example: Example) -> list[str]:
    """Each unbroken run of learnt tokens, decoded."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], example.trained, [False])).astype(int)))
    runs = zip(edges[::2], edges[1::2], strict=True)
    tokenizer = tokenizer_of(name)
    # Decoded behind another token, since some decoders drop a space at the beginning of a text.
    before = tokenizer.eos_token_id
    texts = [tokenizer.decode([before, *example.input_ids[begins:ends]]) for begins, ends in runs]
    return [text.removeprefix(tokenizer.eos_token) for text in texts]


def template_ids(name: str, messages: tuple[Message, ...], ask: bool) -> list[int]:
    turns = [message.as_dict() for message in messages]
    return tokenizer_of(name).apply_chat_template(turns, add_generation_prompt=ask, return_dict=False)


@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma", "mistral", "phi3"])
def test_every_answer_with_its_stop_token_is_learnt(name):
    chat = conversation("What is 1?", "It is one.", "And the capital?", "It is Paris, of France.", "Thanks")
    result = tokenise(name, chat)
    (only,) = result.examples
    # Mistral's template has the space in front of an answer written by the model.
    space = " " if name == "mistral" else ""
    wanted = ["It is one.", "It is Paris, of France."]
    assert learnt_texts(name, only) == [space + answer + STOPS[name] for answer in wanted]
    assert only.input_ids.tolist() == template_ids(name, chat.messages, ask=False)
    assert result.prompt_ids.tolist() == template_ids(name, chat.messages[:3], ask=True)
    assert (only.row, only.input_ids.dtype, only.trained.dtype) == (7, np.int32, np.bool_)


def test_thoughts_are_learnt_where_the_template_shows_them():
    chat = conversation("a?", "<think>\nwhy\n</think>\n\none", "b?", "<think>\nso\n</think>\n\ntwo")
    result = tokenise("thinking", chat)
    assert learnt_texts("thinking", result.examples[0]) == [
        "one<|im_end|>",
        "<think>\nso\n</think>\n\ntwo<|im_end|>",
    ]
    assert result.prompt_ids.tolist() == template_ids("thinking", chat.messages[:3], ask=True)
    # An answer without a thought is asked for with none, so the model has to write the empty one itself.
    plain = tokenise("thinking", conversation("a?", "one"))
    assert learnt_texts("thinking", plain.examples[0]) == ["<think>\n\n</think>\n\none<|im_end|>"]


def test_the_models_own_words_are_learnt_though_the_prompt_looked_different_when_asked():
    # All system messages are put first, so the second one changes what stands before the first answer.
    template = """{% for message in messages %}{% if message.role == 'system' %}{{ message.content }}{% endif %}\
{% endfor %}{% for message in messages %}{% if message.role == 'user' %}{{ '<|im_start|>user ' + message.content }}\
{% elif message.role == 'assistant' %}{{ '<|im_start|>assistant: ' + message.content + '<|im_end|>' }}{% endif %}\
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}"""
    tokenizer = type(tokenizer_of("chatml"))(
        tokenizer_object=tokenizer_of("chatml").backend_tokenizer, eos_token="<|im_end|>", chat_template=template
    )
    messages = (*conversation("a?", "one").messages, Message("system", "S"), *conversation("b?", "two").messages)
    (result,) = Tokeniser(tokenizer, 128, "answers").tokenise([(0, Conversation(messages))])
    assert isinstance(result, Tokenised)
    assert learnt_texts("chatml", result.examples[0]) == [": one<|im_end|>", ": two<|im_end|>"]


def test_an_answer_without_a_stop_token_gets_the_end_of_text():
    result = tokenise("words", conversation("a?", "one", "b?", "two"))
    assert learnt_texts("words", result.examples[0]) == ["one", "two</s>"]


def test_plain_words_that_end_an_answer_are_learnt():
    template = """{% for message in messages %}{{ message.role + ': ' + message.content + ' [END]\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"""
    tokenizer = type(tokenizer_of("chatml"))(
        tokenizer_object=tokenizer_of("chatml").backend_tokenizer, eos_token="<|im_end|>", chat_template=template
    )
    (result,) = Tokeniser(tokenizer, 128, "answers").tokenise([(0, conversation("a?", "one", "b?", "two"))])
    assert isinstance(result, Tokenised)
    assert learnt_texts("chatml", result.examples[0]) == ["one [END]", "two [END]"]


def test_answers_that_are_context_only_are_not_learnt():
    turns = (Message("user", "a?"), Message("assistant", "one", learnt=False), Message("user", "b?"))
    chat = Conversation((*turns, Message("assistant", "two")))
    assert learnt_texts("chatml", tokenise("chatml", chat).examples[0]) == ["two<|im_end|>"]


def test_what_is_learnt_can_be_chosen():
    chat = conversation("a?", "one", "b?", "two", system="Be brief.")
    assert learnt_texts("llama3", tokenise("llama3", chat, train_on="last_answer").examples[0]) == ["two<|eot_id|>"]
    everything = tokenise("llama3", chat, train_on="everything").examples[0]
    assert everything.trained.tolist() == [False] + [True] * (len(everything) - 1)


answers = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(lambda text: text.strip())


@given(first=answers, question=answers, last=answers)
@example(first="\n\nspaced  ", question="<", last="  \n x \n\n")
@example(first="one", question="one", last="one")
@example(first="answerstandshere0answerstandshere", question="answerstandshere", last="answerstandshere")
@example(first="e\u0301👩‍👩‍👧", question="\ufeff\u2028", last="\x00 ")
@example(first="assistant\n", question="### assistant:\n", last="user\n\nassistant\n")
@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma", "mistral", "thinking", "words"])
def test_any_answer_is_learnt_to_the_letter(name, first, question, last):
    trims = name in ("llama3", "gemma")
    chat = conversation("?", first, question, last)
    result = tokenise(name, chat, length=100_000)
    wanted = [answer.strip() if trims else answer for answer in (first, last)]
    if name == "words":
        wanted[1] += "</s>"
    elif name == "mistral":
        wanted = [f" {answer}</s>" for answer in wanted]
    elif name == "thinking":
        wanted = [wanted[0] + "<|im_end|>", f"<think>\n\n</think>\n\n{wanted[1]}<|im_end|>"]
    else:
        wanted = [answer + STOPS[name] for answer in wanted]
    assert learnt_texts(name, result.examples[0]) == wanted
    alone = tokenise(name, conversation(question, last), length=100_000)
    assert alone.prompt_ids.tolist() == template_ids(name, conversation(question).messages, ask=True)


@pytest.mark.parametrize(
    ("name", "chat", "reason"),
    [
        (
            "gemma",
            conversation("a", "b", system="s"),
            "is rejected by the chat template: System role not supported",
        ),
        (
            "gemma",
            Conversation((Message("user", "a"), Message("user", "b"), Message("assistant", "c"))),
            "is rejected by the chat template: Conversation roles must alternate user/assistant",
        ),
        (
            "chatml",
            conversation("a" * 300, "b"),
            "has its answer wholly cut off at 64 tokens; a larger data.sequence_length would keep it",
        ),
    ],
)
def test_a_row_that_cannot_be_learnt_says_why(name, chat, reason):
    good = conversation("a", "b")
    results = Tokeniser(tokenizer_of(name), 64, "answers").tokenise([(0, good), (1, chat), (2, good)])
    assert isinstance(results[1], Unusable) and str(results[1]) == reason
    assert [result.examples[0].row for result in (results[0], results[2])] == [0, 2]


def test_a_long_answer_is_cut_at_the_end_and_counted():
    chat = conversation("a?", "one two three " * 40)
    whole, cut = tokenise("chatml", chat), tokenise("chatml", chat, length=32)
    assert cut.is_cut and not whole.is_cut
    assert cut.examples[0].input_ids.tolist() == whole.examples[0].input_ids[:32].tolist()
    assert cut.examples[0].trained.tolist() == whole.examples[0].trained[:32].tolist()


def test_a_huge_row_is_tokenised_as_far_as_it_is_kept(monkeypatch):
    monkeypatch.setattr(tokenise_module, "_SECTION_CHARACTERS", 50)
    answer = "The quick brown fox jumps. " * 2000
    huge = tokenise("chatml", conversation("a?", answer, "b?", "two"), length=64)
    (only,) = huge.examples
    assert (len(only), huge.is_cut, huge.prompt_ids) == (64, True, None)
    assert answer.startswith(*learnt_texts("chatml", only))
    last = Tokeniser(tokenizer_of("chatml"), 64, "last_answer").tokenise([(0, conversation("a?", answer, "b?", "two"))])
    assert str(last[0]).startswith("has its answer wholly cut off at 64 tokens")
    parts = tokenise("chatml", PlainText(answer), length=64).examples
    ids = [parts[0].input_ids[0], *(token for part in parts for token in part.input_ids[1:])]
    assert ids == [*tokenizer_of("chatml")(answer)["input_ids"], tokenizer_of("chatml").eos_token_id]


@given(text=answers, length=st.integers(8, 40))
@pytest.mark.parametrize("name", ["llama3", "mistral"])
def test_plain_text_of_any_length_is_learnt_whole(name, text, length):
    tokenizer = tokenizer_of(name)
    result = tokenise(name, PlainText(text), length)
    ids, learnt = [result.examples[0].input_ids[0]], []
    for part in result.examples:
        assert 2 <= len(part) <= length and part.trained.tolist() == [False] + [True] * (len(part) - 1)
        assert part.input_ids[0] == ids[-1]
        ids += part.input_ids[1:].tolist()
        learnt += part.input_ids[part.trained].tolist()
    assert ids == [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    assert learnt == ids[1:]


def test_a_pair_needs_no_chat_template_but_a_conversation_does():
    tokenizer = tokenizer_of("llama3")
    bare = type(tokenizer)(
        tokenizer_object=tokenizer.backend_tokenizer, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"
    )
    tokeniser = Tokeniser(bare, 128, "answers")
    pair = Conversation((Message("user", "Capital?"), Message("assistant", "Paris")), is_pair=True)
    (result,) = tokeniser.tokenise([(0, pair)])
    (only,) = result.examples
    assert bare.decode(only.input_ids) == "<|begin_of_text|>Capital?\nParis<|eot_id|>"
    assert bare.decode(only.input_ids[only.trained]) == "Paris<|eot_id|>"
    with pytest.raises(Problem, match="has no chat template"):
        tokeniser.tokenise([(0, conversation("a", "b"))])


def test_a_template_with_a_syntax_error_is_told_with_its_line():
    tokenizer = tokenizer_of("chatml")
    broken = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|im_end|>")
    broken.chat_template = "{{ messages }}\n{% if %}"
    with pytest.raises(Problem, match="chat template, line 2: is not valid Jinja"):
        Tokeniser(broken, 128, "answers")
