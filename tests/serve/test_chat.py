"""The chat session against real worker processes over small random models."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny

from engine.modules import module_environment
from engine.run.sealing.hearing import Hearing
from engine.serve.session import ChatSession, Chunk
from profiles.problem import Problem

QUESTION = [{"role": "user", "content": "Where does it hurt?"}]
RECITED = {"base": "é😀漢 ok", "tuned": "ñ🙂字!"}


def ask(session: ChatSession, messages: Any = QUESTION, **options: Any) -> dict[str, list[Chunk]]:
    """Both sides' chunks."""
    chunks = list(session.ask({"base": messages, "tuned": messages}, **options))
    return {side: [chunk for chunk in chunks if chunk.side == side] for side in ("base", "tuned")}


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def children_of(parent: int) -> set[int]:
    """The process ids of what `parent` started."""
    return {int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()}


def is_running(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second when it is reaped between opening and reading
        return False


def generated(run: Any, messages: Any, new_tokens: int) -> dict[str, str]:
    """What transformers' own greedy `generate` answers with models loaded apart from each other."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    spec, texts = run.spec(), {}
    tokenizer = AutoTokenizer.from_pretrained(spec.model.path)
    quantised = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    options: dict[str, Any] = {"dtype": torch.float32}
    if spec.method.kind == "qlora":
        options["quantization_config"] = quantised
    for side in ("base", "tuned"):
        if side == "tuned" and spec.method.kind == "full":
            model = AutoModelForCausalLM.from_pretrained(run.outputs / "model", **options)
        else:
            model = AutoModelForCausalLM.from_pretrained(spec.model.path, **options)
            if side == "tuned":
                model = PeftModel.from_pretrained(model, run.outputs / "adapter")
        inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
        stops = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(tiny.TURN_END)]
        output = model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False, eos_token_id=stops)
        answer = output[0, inputs["input_ids"].shape[1] :]
        texts[side] = tokenizer.decode(answer, skip_special_tokens=True)
    return texts


@pytest.fixture(scope="module")
def lora_run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny.make_run(tmp_path_factory.mktemp("lora"), "lora")


@pytest.fixture(scope="module")
def lora_chat(lora_run: Any) -> Iterator[ChatSession]:
    with ChatSession(lora_run) as session:
        session.start()
        yield session


@pytest.fixture(scope="module")
def reciting_chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatSession]:
    """A full run whose base and tuned model recite a known text each."""
    folder = tmp_path_factory.mktemp("reciting")
    models = {side: tiny.make_reciter(folder / side, text) for side, text in RECITED.items()}
    run = tiny.make_run(folder, "full", model=models["base"], tuned=models["tuned"])
    with ChatSession(run) as session:
        session.start()
        yield session


def test_greedy_answers_equal_generate_over_turns_long_prompts_and_invalid_bytes(
    lora_chat: ChatSession, lora_run: Any
) -> None:
    # Random models write plenty of bytes that are no UTF-8; the long prompt is read in pieces, the third
    # conversation takes up where the first ended, and the last shares only a beginning with it.
    first = ask(lora_chat, max_new_tokens=40)
    follow_up = [
        *QUESTION,
        {"role": "assistant", "content": text_of(first["tuned"])},
        {"role": "user", "content": "Since when?"},
    ]
    long = [{"role": "user", "content": "it hurts " * 110}]
    other = [{"role": "user", "content": "Where does the train go?"}]
    for messages in (QUESTION, long, follow_up, other):
        streamed = ask(lora_chat, messages, max_new_tokens=40)
        expected = generated(lora_run, messages, 40)
        assert {side: text_of(chunks) for side, chunks in streamed.items()} == expected
        assert expected["base"] != expected["tuned"]
        for chunks in streamed.values():
            assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
            assert (chunks[-1].ending, chunks[-1].tokens) == ("length", 40)
            assert chunks[-1].tokens_per_second and chunks[-1].tokens_per_second > 0


@pytest.mark.parametrize(
    ("method", "family", "template"),
    [
        ("lora", "gemma3", "gemma"),
        pytest.param("qlora", "llama", "chatml", marks=pytest.mark.slow),
        pytest.param("full", "qwen3", "chatml", marks=pytest.mark.slow),
    ],
)
def test_other_methods_and_families_answer_as_generate_does(
    tmp_path: Path, method: Any, family: Any, template: Any
) -> None:
    model = tiny.make_model(tmp_path / "base", family, template=template)
    run = tiny.make_run(tmp_path, method, model=model)
    # Longer than gemma's window of 64 tokens, whose cache cannot be cut back for the second question.
    talks = [[{"role": "user", "content": f"{word} hurts " * 30}] for word in ("it", "he")]
    with ChatSession(run) as session:
        loaded = session.start()
        assert loaded.context_tokens == tiny.CONTEXT_TOKENS
        assert loaded.has_template
        for messages in talks:
            streamed = ask(session, messages, max_new_tokens=30)
            expected = generated(run, messages, 30)
            assert {side: text_of(chunks) for side, chunks in streamed.items()} == expected


def test_characters_spread_over_tokens_arrive_whole_and_the_end_of_turn_ends_the_answer(
    reciting_chat: ChatSession,
) -> None:
    for side, chunks in ask(reciting_chat).items():
        assert text_of(chunks) == RECITED[side]
        assert chunks[-1].ending == "stop"
        assert not any("\ufffd" in chunk.text for chunk in chunks)


def test_an_answer_cut_inside_a_character_says_so_with_one_replacement(reciting_chat: ChatSession) -> None:
    # é is two tokens, and two of the emoji's four follow.
    chunks = ask(reciting_chat, max_new_tokens=4)["base"]
    assert (text_of(chunks), chunks[-1].ending) == ("é\ufffd", "length")


def test_both_sides_stream_in_turns(lora_chat: ChatSession) -> None:
    sides = [
        chunk.side
        for chunk in lora_chat.ask({"base": QUESTION, "tuned": QUESTION}, max_new_tokens=900)
        if not chunk.done
    ]
    assert set(sides) == {"base", "tuned"}
    assert sides[:2] == ["base", "tuned"]
    # The first side goes on after the second has begun. How often they change depends on the machine's speed.
    assert sum(before != after for before, after in pairwise(sides)) >= 2


def test_the_same_seed_gives_the_same_sample_and_another_seed_another(lora_chat: ChatSession) -> None:
    def sample(seed: int) -> str:
        return text_of(ask(lora_chat, max_new_tokens=30, temperature=1.5, seed=seed)["tuned"])

    assert sample(7) == sample(7)
    assert sample(7) != sample(8)


def test_one_side_can_be_asked_alone(lora_chat: ChatSession, lora_run: Any) -> None:
    chunks = list(lora_chat.ask({"tuned": QUESTION}, max_new_tokens=10))
    assert {chunk.side for chunk in chunks} == {"tuned"}
    assert text_of(chunks) == generated(lora_run, QUESTION, 10)["tuned"]


def test_cancel_ends_both_answers_and_the_next_question_is_answered(lora_chat: ChatSession) -> None:
    ends: dict[str, Chunk] = {}
    for chunk in lora_chat.ask({"base": QUESTION, "tuned": QUESTION}, max_new_tokens=900):
        if chunk.done:
            ends[chunk.side] = chunk
        else:
            lora_chat.cancel()
    assert {side: chunk.ending for side, chunk in ends.items()} == {"base": "cancelled", "tuned": "cancelled"}
    assert all(chunk.tokens < 900 for chunk in ends.values())
    assert text_of(ask(lora_chat, max_new_tokens=5)["base"])


def test_an_abandoned_answer_does_not_disturb_the_next(lora_chat: ChatSession) -> None:
    expected = ask(lora_chat, max_new_tokens=20)["tuned"]
    abandoned = lora_chat.ask({"base": QUESTION, "tuned": QUESTION}, max_new_tokens=900)
    next(abandoned)
    del abandoned
    assert text_of(ask(lora_chat, max_new_tokens=20)["tuned"]) == text_of(expected)


def test_a_conversation_longer_than_the_context_is_told_and_the_chat_goes_on(lora_chat: ChatSession) -> None:
    too_long = [{"role": "user", "content": "a b " * tiny.CONTEXT_TOKENS}]
    with pytest.raises(Problem, match=r"tuned.*: is [\d,]+ tokens, and the model reads at most 1,024"):
        list(lora_chat.ask({"base": QUESTION, "tuned": too_long}))
    assert text_of(ask(lora_chat, max_new_tokens=5)["base"])


def test_an_answer_that_reaches_the_context_ends_there(lora_chat: ChatSession) -> None:
    nearly = [{"role": "user", "content": "5 " * 950}]
    last = ask(lora_chat, nearly, max_new_tokens=900)["base"][-1]
    assert last.ending == "context"
    assert 0 < last.tokens < 100


def test_half_a_character_is_told(lora_chat: ChatSession) -> None:
    with pytest.raises(Problem, match=r"character 3 is half a character"):
        lora_chat.ask({"base": [{"role": "user", "content": "hi\ud83d"}]})


def test_a_template_that_refuses_a_message_is_told(tmp_path: Path) -> None:
    run = tiny.make_run(tmp_path, model=tiny.make_model(tmp_path / "base", template="gemma"))
    with ChatSession(run) as session:
        session.start()
        with pytest.raises(Problem, match="is rejected by the model's chat template: no system role"):
            list(session.ask({"base": [{"role": "system", "content": "Be brief."}, *QUESTION]}))
        assert text_of(ask(session, max_new_tokens=5)["base"])


@pytest.mark.parametrize(
    ("row", "question"),
    [
        ({"prompt": "How?", "completion": "So."}, "How are you?"),
        pytest.param({"text": "How? So."}, "How are you?\n", marks=pytest.mark.slow),
    ],
)
def test_without_a_template_text_is_continued_as_it_was_learned(
    tmp_path: Path, row: dict[str, str], question: str
) -> None:
    # The model recites after a line break, which follows a question where pairs were learned and is typed otherwise.
    run = tiny.make_run(tmp_path, "full", model=tiny.make_reciter(tmp_path / "base", RECITED["base"], template=None))
    run.spec().data.paths[0].write_text(json.dumps(row) + "\n")
    with ChatSession(run) as session:
        assert session.start().has_template is False
        chunks = list(session.ask({"base": [{"role": "user", "content": question}]}))
    assert text_of(chunks) == RECITED["base"]


def test_a_killed_worker_is_a_problem_(lora_run: Any) -> None:
    with ChatSession(lora_run) as session:
        before = children_of(os.getpid())
        session.start()
        [worker] = children_of(os.getpid()) - before
        chunks = session.ask({"base": QUESTION, "tuned": QUESTION}, max_new_tokens=900)
        next(chunks)
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(Problem, match=r"killed from outside \(SIGKILL\)"):
            list(chunks)
        with pytest.raises(Problem, match="killed from outside"):
            list(session.ask({"base": QUESTION}))


def test_a_base_model_that_is_gone_is_told_at_the_start(tmp_path: Path) -> None:
    run = tiny.make_run(tmp_path)
    (tmp_path / "base" / "model.safetensors").unlink()
    with ChatSession(run) as session, pytest.raises(Problem, match="has no weights"):
        session.start()


def test_a_run_without_a_result_is_told_at_once(tmp_path: Path) -> None:
    run = tiny.make_run(tmp_path)
    (run.outputs / "adapter").rename(tmp_path / "elsewhere")
    with pytest.raises(Problem, match="has no tuned adapter yet"):
        ChatSession(run).start()


def test_the_worker_ends_with_the_process_that_talks_with_it(lora_run: Any) -> None:
    # A killed app cannot close anything; the kernel closes its end of the pipe.
    script = (
        "import sys; from pathlib import Path\n"
        "from engine.run.directory import RunDirectory\n"
        "from engine.serve.session import ChatSession\n"
        "session = ChatSession(RunDirectory(Path(sys.argv[1])))\n"
        "session.start(lambda detail: print(detail, flush=True))\n"
    )
    app = subprocess.Popen(
        [sys.executable, "-c", script, str(lora_run.path)],
        stdout=subprocess.PIPE,
        env=module_environment(),
        text=True,
    )
    assert app.stdout is not None
    assert app.stdout.readline()  # the worker is up, in the middle of loading
    [worker] = children_of(app.pid)
    app.kill()
    app.wait()
    app.stdout.close()
    until = time.monotonic() + 60
    while is_running(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_running(worker)


def test_a_new_question_ends_the_answers_to_the_one_before_even_when_both_are_read(
    lora_chat: ChatSession,
) -> None:
    expected = text_of(ask(lora_chat, max_new_tokens=20)["tuned"])
    ends: list[Any] = []
    older = lora_chat.ask({"base": QUESTION}, max_new_tokens=900)
    reader = threading.Thread(target=lambda: ends.extend(chunk.ending for chunk in older if chunk.done))
    reader.start()
    assert text_of(ask(lora_chat, max_new_tokens=20)["tuned"]) == expected
    reader.join()
    assert ends == ["cancelled"]


def test_closing_ends_an_answer_that_another_thread_reads(lora_run: Any) -> None:
    with ChatSession(lora_run) as session:
        session.start()
        chunks = session.ask({"base": QUESTION, "tuned": QUESTION}, max_new_tokens=900)
        next(chunks)
        session.close()
        assert not any(chunk.done for chunk in chunks)
        with pytest.raises(Problem, match="was closed"):
            session.ask({"base": QUESTION})


def test_closing_while_the_models_load_ends_the_start(lora_run: Any) -> None:
    session = ChatSession(lora_run)
    with pytest.raises(Problem, match="was closed"):
        session.start(lambda detail: session.close())


def test_closing_while_the_worker_is_started_leaves_none(lora_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session = ChatSession(lora_run)
    closing = threading.Thread(target=session.close)
    start_worker = Hearing.start

    def start(*arguments: Any, **named: Any) -> Any:
        closing.start()
        return start_worker(*arguments, **named)

    monkeypatch.setattr(Hearing, "start", start)
    with pytest.raises(Problem, match="was closed"):
        session.start()
    closing.join()
    assert not children_of(os.getpid()) & {session._process.pid}  # type: ignore[union-attr]
    with pytest.raises(Problem, match="was closed"):
        closed = ChatSession(lora_run)
        closed.close()
        closed.start()
