"""What is proposed for a model, data and a machine, and how a person's own values are kept."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "profiles"))
from model_folder import LLAMA, make_model

from engine.propose import predict, propose
from engine.spec import load_spec
from profiles.hardware import Cpu, Disk, Gpu, Hardware, Ram
from profiles.memory import COMPONENTS
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

    assert found.fits and found.estimate.peak_bytes <= found.budget_bytes == int(16 * GIB * 0.9)
    assert tuple(found.estimate.components) == COMPONENTS
    assert sum(found.estimate.components.values()) == found.estimate.peak_bytes
    assert found.spec.name == "my-data" and found.spec.method.kind == "lora"
    assert found.spec.data.sequence_length == 512  # the model's context, and the rows are shorter
    assert found.spec.model.path.is_absolute() and found.spec.data.train[0].is_absolute()
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
    assert (found.spec.model.path, found.spec.data.train, found.spec.name) == (model, (data,), "mine")


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
    model = big_model(tmp_path / "big")
    kinds: list[tuple[str, int]] = []
    for free in (75, 16, 10, 6, 4):
        found = propose(model, [data], None, gpu_machine(free * GIB), {})
        kinds.append((found.spec.method.kind, found.spec.train.gradient_checkpointing))
        assert found.fits == (free > 4)
    assert kinds == [("lora", 0), ("lora", 1), ("qlora", 0), ("qlora", 1), ("qlora", 1)]
    assert "even this does not fit" in found.reasons["method.kind"]
    assert found.spec.train.micro_batch == 1


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
    assert old.estimate.components["weights"] == new.estimate.components["weights"] == 2 * old.geometry.parameters
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
    assert "none of its 2 rows" in refusal(model, write_rows(tmp_path / "bad.jsonl", [{"a": 1}, {"a": 2}]))
    assert refusal(model)
    (model / "chat_template.jinja").unlink()
    assert "no chat template" in refusal(model, data)
    pairs = write_rows(tmp_path / "pairs.jsonl", [{"prompt": f"p{n}", "completion": "c"} for n in range(50)])
    assert propose(model, [pairs], None, cpu_machine(), {}).fits
