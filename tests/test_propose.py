"""What is proposed for a model, data and a machine, and how a person's own values are kept."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "profiles"))
from model_folder import LLAMA, make_model

from engine.data.source import Source
from engine.inputs import check_inputs, columns_said, source_at
from engine.propose import budget_bytes, gather, gather_plan, plan_for, predict, propose, propose_from, settings_of
from engine.spec import RunSpec, SourceSection, load_spec
from profiles.hardware import Cpu, Disk, Gpu, Hardware, Ram
from profiles.memory import COMPONENTS
from profiles.planner import Job
from profiles.problem import Problem

GIB = 1 << 30


def cpu_machine(available_bytes: int = 16 * GIB) -> Hardware:
    return Hardware("host", Cpu("cpu", 4, 8, False), Ram(32 * GIB, available_bytes), (), Disk(Path("/"), GIB, GIB), ())


def gpu_machine(free_bytes: int, capability: tuple[int, int] = (8, 9)) -> Hardware:
    gpu = Gpu(
        0, "GPU-a", "Test", 80 * GIB, 80 * GIB - free_bytes, capability, capability >= (8, 0), None, None, None, ()
    )
    return replace(cpu_machine(), gpus=(gpu,))


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model", {"vocab_size": 32_000})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "my data!.jsonl", [chat(f"question {n} " * 20, f"answer {n}") for n in range(600)])


def big_model(folder: Path) -> Path:
    """A model of 7 billion parameters whose weight file is a header over a hole."""
    config = {
        **LLAMA,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32_000,
        "max_position_embeddings": 4096,
    }
    make_model(folder)
    (folder / "config.json").write_text(json.dumps(config))
    from math import prod

    from model_folder import llama_tensors

    header, end = {}, 0
    for name, shape in llama_tensors(config).items():
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [end, end + 2 * prod(shape)]}
        end += 2 * prod(shape)
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return folder


def test_a_proposal_is_whole_fits_and_can_be_loaded_again(tmp_path: Path, model: Path, data: Path) -> None:
    found = propose(model, [data], None, cpu_machine(), {})

    assert found.fits and found.estimate.peak_bytes <= found.budget_bytes < 15.5 * GIB
    assert found.budget_bytes == budget_bytes(cpu_machine(), found.estimate)
    assert tuple(found.estimate.components) == COMPONENTS
    assert sum(found.estimate.components.values()) == found.estimate.peak_bytes
    assert found.spec.name == "my-data" and found.spec.method.kind == "lora"
    assert found.spec.data.sequence_length == 512  # the model's context, and the rows are shorter
    assert found.spec.model.path.is_absolute() and found.spec.data.paths[0].is_absolute()
    assert found.spec.data.held_out_share * 600 == pytest.approx(30)
    values = found.spec.model_dump()
    for field, why in found.reasons.items():
        section, key = field.split(".")
        assert key in values[section] and why
    (tmp_path / "spec.toml").write_text(found.spec.to_toml())
    assert load_spec(tmp_path / "spec.toml") == found.spec
    assert predict(found.spec, found.geometry, cpu_machine()) == found.estimate


def test_relative_paths_are_kept_whole(tmp_path: Path, model: Path, data: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    found = propose(Path("model"), [Path(data.name)], None, cpu_machine(), {}, name="mine")
    assert (found.spec.model.path, found.spec.data.paths, found.spec.name) == (model, (data,), "mine")


def test_a_persons_values_win_and_the_rest_is_fitted_around_them(model: Path, data: Path) -> None:
    overrides = {
        "method": {"kind": "full"},
        "optimizer": {"kind": "adamw_8bit"},
        "train": {"micro_batch": 3, "epochs": 7.0},
        "data": {"sequence_length": 64},
    }
    plain = propose(model, [data], None, cpu_machine(), {})
    found = propose(model, [data], None, cpu_machine(), overrides)
    dumped = found.spec.model_dump()
    assert all(dumped[section][key] == value for section, values in overrides.items() for key, value in values.items())
    assert found.reasons["method.kind"] == found.reasons["train.epochs"] == "as you set it"
    assert found.estimate.components["adapters"] == 0
    assert found.spec.optimizer.learning_rate == pytest.approx(plain.spec.optimizer.learning_rate / 10)
    assert overrides["train"] == {"micro_batch": 3, "epochs": 7.0}  # the caller's dict is not touched


def test_what_memory_is_there_decides_the_method(tmp_path: Path, data: Path) -> None:
    """As memory shrinks: less is kept of a step, then of the weights, then of a step again; the rows of it stay."""
    gathered = gather(big_model(tmp_path / "big"), [data], None, gpu_machine(80 * GIB))
    kinds: list[tuple[str, bool]] = []
    for quarters in range(4 * 40, 4 * 4, -1):
        found = propose_from(replace(gathered, hardware=gpu_machine(quarters * GIB // 4)), {})
        if found.fits:
            kinds.append((found.spec.method.kind, bool(found.spec.train.gradient_checkpointing)))
    assert list(dict.fromkeys(kinds)) == [("lora", False), ("lora", True), ("qlora", False), ("qlora", True)]
    methods = [method for method, _ in kinds]
    assert methods == sorted(methods), "lora before qlora"
    assert not found.fits and "even this does not fit" in found.reasons["method.kind"]
    assert found.spec.train.micro_batch == 1


def test_a_profile_can_be_named(tmp_path: Path, model: Path, data: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "recipes").mkdir(parents=True)
    (tmp_path / "home" / "recipes" / "mine.toml").write_text("[method]\nrank = 5\n")
    gathered = gather(model, [data], None, cpu_machine())
    plan = plan_for(gathered, {})
    for profile in plan.profiles:
        found = propose_from(gathered, {"train": {"seed": 7}}, "named", profile.name)
        assert found.profile.name == profile.name and found.spec.train.seed == 7 and found.spec.name == "named"
        values = found.spec.model_dump()
        for field, value in profile.values.items():
            section, key = field.split(".")
            assert values[section][key] == value
        assert predict(found.spec, found.geometry, cpu_machine()) == found.estimate
    assert propose_from(gathered, {}, profile="mine").spec.method.rank == 5
    assert propose_from(gathered, {}, profile="full").spec.method.kind == "full"
    # Made for a thousand rows and more, so it is not offered; by its name it can be had.
    assert propose_from(gathered, {}, profile="lora-without-regret").spec.schedule.kind == "constant"
    with pytest.raises(Problem) as raised:
        propose_from(gathered, {}, profile="cheapest")
    assert "cheapest" in raised.value.what and "best quality" in raised.value.fix


def test_a_broken_recipe_is_told_of_and_stops_nothing(
    tmp_path: Path, model: Path, data: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "odd.toml").write_text("[method]\nrank = -5\n")
    notes = plan_for(gather(model, [data], None, cpu_machine()), {}).notes
    assert any("odd.toml" in note and "method.rank" in note for note in notes)


def test_planning_needs_neither_weights_nor_data(tmp_path: Path, data: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "vocab_size": 32_000}))
    gathered = gather_plan(tmp_path, [], None, cpu_machine())
    plan = plan_for(gathered, {"data": {"sequence_length": 300}})
    assert plan.profiles[0].fits and plan.profiles[0].seconds is None
    assert all(profile.settings.sequence_length == 300 for profile in plan.profiles)
    assert plan_for(gather_plan("Qwen/Qwen3-0.6B", [data], None, cpu_machine()), {}).profiles[0].seconds
    with pytest.raises(Problem):
        plan_for(gathered, {"method": {"rank": "wide"}})


def test_less_memory_never_proposes_more(tmp_path: Path, data: Path) -> None:
    model = big_model(tmp_path / "big")
    found = [propose(model, [data], None, gpu_machine(free * GIB), {}) for free in range(80, 4, -5)]
    peaks = [each.estimate.peak_bytes for each in found]
    rows = {each.spec.rows_per_step for each in found}
    assert peaks == sorted(peaks, reverse=True)
    assert max(rows) <= 2 * min(rows)  # the effective batch stays about the same on every rung


def test_the_length_follows_the_data(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m", {"max_position_embeddings": 8192, "vocab_size": 32_000})

    def length(rows: list[Any]) -> int:
        file = write_rows(tmp_path / "rows.jsonl", rows)
        return propose(model, [file], None, cpu_machine(), {}).spec.data.sequence_length

    assert length([chat("x" * 300, "y")] * 20) == 512
    assert 1000 < length([chat("x" * 300, "y"), chat("x" * 3000, "y")]) <= 1152
    assert length([chat("早" * 3000, "y")] * 20) > 3000  # about one token per character
    assert length([chat("x" * 90_000, "y")] * 20) == 8192  # the model's context
    assert length([chat("x" * 300, "y")] * 500 + [chat("x" * 90_000, "y")]) == 512  # one giant row is cut


def test_gpus_without_bf16_compute_in_fp16(model: Path, data: Path) -> None:
    """Both take half precision, but only one has varlen attention, which needs no joined copy of its output."""
    old = propose(model, [data], None, gpu_machine(8 * GIB, (7, 5)), {})
    new = propose(model, [data], None, gpu_machine(8 * GIB, (8, 0)), {})
    assert (old.profile.settings.compute_dtype, new.profile.settings.compute_dtype) == ("fp16", "bf16")
    assert old.estimate.components["weights"] == new.estimate.components["weights"]
    assert old.estimate.components["activations"] > new.estimate.components["activations"]


@pytest.mark.parametrize(
    ("overrides", "where", "what"),
    [
        ({"train": {"epocs": 3}}, "train.epocs", "not a setting"),
        ({"optimizer": {"learning_rate": -1.0}}, "optimizer.learning_rate", "-1.0"),
        ({"data": {"sequence_length": 4096}}, "data.sequence_length", "context is 512"),
        ({"train": 3}, "train", "3"),
    ],
)
def test_overrides_that_are_no_setting(model: Path, data: Path, overrides: Any, where: str, what: str) -> None:
    with pytest.raises(Problem) as raised:
        propose(model, [data], None, cpu_machine(), overrides)
    assert where in raised.value.where and what in raised.value.what


def test_what_cannot_be_trained_on_is_refused_before_anything_starts(tmp_path: Path, model: Path, data: Path) -> None:
    def refusal(model: Path, *train: Path, held_out: Path | None = None) -> str:
        with pytest.raises(Problem) as raised:
            propose(model, train, held_out, cpu_machine(), {})
        return str(raised.value)

    assert "no such folder" in refusal(tmp_path / "absent", data)
    assert "absent.jsonl" in refusal(model, data, tmp_path / "absent.jsonl")
    assert "held_out" in refusal(model, data, held_out=data)
    assert "columns that are known (columns: a)" in refusal(model, write_rows(tmp_path / "a.jsonl", [{"a": 1}]))
    assert "none of its 2 rows" in refusal(model, write_rows(tmp_path / "bad.jsonl", [{"text": 1}, {"text": 2}]))
    labels = write_rows(tmp_path / "labels.jsonl", [{"text": "t", "label": "a"}] * 9)
    assert "holds texts with labels, while" in refusal(model, data, labels)
    assert "holds texts with labels, while" in refusal(model, data, held_out=labels)
    assert refusal(model)


def test_a_model_without_a_template_gets_one_that_fits_it(tmp_path: Path, model: Path, data: Path) -> None:
    (model / "chat_template.jinja").unlink()
    spec = propose(model, [data], None, cpu_machine(), {}).spec
    assert spec.data.chat_template == "plain"
    with pytest.raises(Problem, match="no chat template") as refused:
        check_inputs(spec.model_copy(update={"data": spec.data.model_copy(update={"chat_template": "model"})}))
    assert 'data.chat_template = "plain"' in refused.value.fix
    marks = [{"id": n, "content": text, "special": True} for n, text in enumerate(["<|im_start|>", "<|im_end|>"])]
    (model / "tokenizer.json").write_text(json.dumps({"added_tokens": marks}))
    found = propose(model, [data], None, cpu_machine(), {})
    assert found.spec.data.chat_template == "chatml" and "<|im_start|>" in found.reasons["data.chat_template"]
    check_inputs(found.spec)
    kept = propose(model, [data], None, cpu_machine(), {"data": {"chat_template": "zephyr"}})
    assert (kept.spec.data.chat_template, kept.reasons["data.chat_template"]) == ("zephyr", "as you set it")
    # One question and one answer need no template.
    pairs = write_rows(tmp_path / "pairs.jsonl", [{"prompt": f"p{n}", "completion": "c"} for n in range(50)])
    assert propose(model, [pairs], None, cpu_machine(), {}).spec.data.chat_template == "model"


KINDS = {
    "next_token": {"text": "some text to read"},
    "dpo": {"prompt": "question", "chosen": "better", "rejected": "worse"},
    "kto": {"prompt": "question", "completion": "answer", "label": True},
    "classification": {"text": "some text", "label": "a"},
    "embedding": {"anchor": "some text", "positive": "another"},
}


@pytest.mark.parametrize("objective", KINDS)
def test_the_objective_follows_from_the_data(tmp_path: Path, model: Path, objective: str) -> None:
    rows = [{**KINDS[objective], next(iter(KINDS[objective])): f"number {n}"} for n in range(50)]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    found = propose(model, [data], None, cpu_machine(), {})
    assert found.spec.objective.kind == objective
    assert ("objective.kind" in found.reasons) == (objective != "next_token")
    check_inputs(load_spec_of(found.spec, tmp_path))
    other = "kto" if objective != "kto" else "dpo"
    with pytest.raises(Problem, match=r"objective\.kind") as refused:
        propose(model, [data], None, cpu_machine(), {"objective": {"kind": other}})
    assert f'"{objective}"' in refused.value.fix
    if objective == "dpo":
        asked = propose(model, [data], None, cpu_machine(), {"objective": {"kind": "orpo"}})
        assert (asked.spec.objective.kind, asked.reasons["objective.kind"]) == ("orpo", "as you set it")


def load_spec_of(spec: RunSpec, folder: Path) -> RunSpec:
    (folder / "spec.toml").write_text(spec.to_toml())
    return load_spec(folder / "spec.toml")


def test_how_data_are_read_is_kept_in_the_spec(tmp_path: Path, model: Path) -> None:
    rows = [{"ask": f"number {n}", "reply_a": "a", "reply_b": "b"} for n in range(50)]
    asked = write_rows(tmp_path / "asked.jsonl", rows)
    plain = write_rows(tmp_path / "plain.jsonl", [{"prompt": "p", "completion": f"c{n}"} for n in range(50)])
    read = Source(asked, columns={"answer": "reply_b"})
    mixed = [SourceSection(path=plain, weight=3.0), read]
    held_out = Source(write_rows(tmp_path / "held.jsonl", rows[:9]), columns={"answer": "reply_a"})
    found = propose(model, mixed, held_out, cpu_machine(), {})
    spec = load_spec_of(found.spec, tmp_path)
    assert spec == found.spec and [section.weight for section in spec.data.train] == [3.0, None]
    assert spec.data.train[1].source() == read
    assert spec.data.held_out is not None and spec.data.held_out.columns == {"answer": "reply_a"}
    assert [each.kind for each in check_inputs(spec).previews] == ["conversation"] * 3
    with pytest.raises(Problem, match="`reply_a` or `reply_b`"):
        propose(model, [asked], None, cpu_machine(), {})
    with pytest.raises(Problem, match="`reply_a` or `reply_b`"):
        gather_plan(model, [asked], None, cpu_machine())
    # Also where they are given as a setting.
    table = {"path": str(asked), "columns": {"answer": "reply_b"}}
    assert propose(model, [asked], None, cpu_machine(), {"data": {"train": [table]}}).spec.data.train[0].columns


def test_a_source_is_named_as_on_a_command_line(tmp_path: Path, model: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert source_at("rows.jsonl", "pair", columns_said(["question=a=b", " answer = c "])) == Source(
        tmp_path / "rows.jsonl", shape="pair", columns={"question": "a=b", "answer": "c"}
    )
    with pytest.raises(Problem, match="PART=COLUMN"):
        columns_said(["question"])
    rows = "".join(json.dumps({"prompt": f"p{n}", "completion": "c"}) + "\n" for n in range(50))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(rows.encode())))
    piped = source_at("-")
    assert propose(model, [piped], None, cpu_machine(), {}).previews[0].rows == 50


def test_a_job_counts_what_goes_through_the_model(tmp_path: Path, model: Path) -> None:
    def job(rows: list[Any], **said: Any) -> Job:
        data = write_rows(tmp_path / "rows.jsonl", rows)
        return gather(model, [SourceSection(path=data, **said)], None, cpu_machine()).job

    chats = job([chat("q" * 300, "a" * 30)] * 40)
    pairs = job([{"prompt": "q" * 300, "chosen": "a" * 30, "rejected": "b" * 30}] * 40)
    assert (pairs.rows, pairs.tokens) == (40, 2 * chats.tokens)  # the prompt goes through with each answer
    assert (pairs.longest_tokens, pairs.answer_tokens) == (chats.longest_tokens, chats.answer_tokens)
    texts = job([{"anchor": "q" * 300, "positive": "p" * 150, "negative": "n" * 150}] * 40)
    assert texts.longest_tokens == 102 and texts.tokens == 40 * 3 * 69
    assert texts.answer_tokens == job([{"text": "t" * 9, "label": 1}] * 40).answer_tokens == 0
    twice = job([chat("q" * 300, "a" * 30)] * 40, repeats=2.5)
    assert (twice.rows, twice.tokens) == (100, round(2.5 * chats.tokens))
    # Only what can be learnt from counts.
    assert job([chat("q", "a")] * 99 + [{"text": ""}]).rows == 99


def test_a_part_of_the_rows_is_planned_as_a_part(model: Path, data: Path) -> None:
    gathered = gather(model, [data], None, cpu_machine())
    part, whole = plan_for(gathered, {"data": {"rows": 60}}).job, plan_for(gathered, {"data": {"rows": 9000}}).job
    assert (part.rows, part.tokens) == (60, round(whole.tokens / 10)) and whole.rows == 600


def test_answers_are_priced_where_there_are_rows_to_answer(model: Path, data: Path, tmp_path: Path) -> None:
    held_out = write_rows(tmp_path / "held.jsonl", [chat("question", "answer")] * 20)
    for file, share, answered in ((None, 0.1, True), (None, 0.0, False), (held_out, 0.0, True)):
        found = propose(model, [data], file, cpu_machine(), {"data": {"held_out_share": share}})
        assert bool(found.profile.settings.answers) == answered
        assert settings_of(found.spec, found.geometry, cpu_machine()) == found.profile.settings
