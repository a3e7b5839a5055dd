"""The memory formulas against what torch really allocates in a training step, and how they move with the settings."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_folder import LLAMA, make_model

from engine.offline import set_offline

set_offline()

import torch  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

from engine.evaluate.answers import generate_answers  # noqa: E402
from engine.evaluate.held_out import judge_held_out  # noqa: E402
from engine.fit.live_bytes import LiveBytes  # noqa: E402
from engine.fit.training_step import TORCH_DTYPES, TrainingStep, head_for, method_section  # noqa: E402
from engine.methods.loading import load_base  # noqa: E402
from engine.methods.trainable import make_trainable  # noqa: E402
from engine.objectives.next_token import NextToken  # noqa: E402
from engine.train.document_attention import forget_masks  # noqa: E402
from engine.train.optimizer import make_optimizer  # noqa: E402
from profiles.geometry import read_geometry  # noqa: E402
from profiles.memory import (  # noqa: E402
    COMPONENTS,
    TRAINING_PHASES,
    estimate,
    optimizer_bytes,
    trainable_elements,
    trainable_parameters,
)
from profiles.settings import Settings  # noqa: E402

BASE = Settings(
    method="lora", device="cpu", compute_dtype="fp32", attention="sdpa", sequence_length=512, loss_chunk=128
)
SHAPE: dict[str, Any] = {
    "vocab_size": 2000,
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {**SHAPE, "model_type": "llama"},
    "qwen3": {**SHAPE, "model_type": "qwen3", "tie_word_embeddings": True, "head_dim": 64},
    "gemma3": {
        **SHAPE,
        "model_type": "gemma3_text",
        "tie_word_embeddings": True,
        "sliding_window": 100,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"],
    },
    "mixtral": {**SHAPE, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": 2000,
        "n_embd": 128,
        "n_layer": 4,
        "n_head": 4,
        "n_positions": 2048,
        "bos_token_id": 0,
        "eos_token_id": 0,
    },
}


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A random model of each kind."""
    found = {}
    for name, config in MODELS.items():
        torch.manual_seed(0)
        found[name] = tmp_path_factory.mktemp(name)
        AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).save_pretrained(found[name])
    return found


def allocated_by_training(folder: Path, settings: Settings) -> int:
    """Most bytes of tensors in two optimizer steps as the engine takes them."""
    forget_masks()
    dtype = TORCH_DTYPES[settings.weight_dtype]
    quantise = settings.method == "qlora"
    model = load_base(folder, dtype=dtype, device="cpu", quantise=quantise, head=head_for(settings))
    model = make_trainable(model, method_section(settings))
    step = TrainingStep.of(model, settings, make_optimizer, settings.attention)
    live = LiveBytes()
    with live:
        count_tensors(live, model, step)
        for _ in range(2):
            for _ in range(settings.gradient_accumulation):
                step.micro_batch(lambda part: None)
            step.update(lambda part: None)
    del model, step
    gc.collect()
    return live.peak


def count_tensors(live: LiveBytes, model: Any, step: TrainingStep) -> None:
    """Count what there is before a step: the model's tensors, and the batch's."""
    for tensor in (*model.parameters(), *model.buffers(), *step.batch_tensors()):
        live.count(tensor.data)


def of_training(phases: Mapping[str, int]) -> int:
    """The highest of the phases that belong to an optimizer step."""
    return max(phases.get(phase, 0) for phase in TRAINING_PHASES)


CASES: dict[str, tuple[str, Settings]] = {
    "lora": ("llama", BASE),
    "lora, recomputing": ("llama", replace(BASE, gradient_checkpointing=1, sequence_length=1024)),
    "lora on two layers, every 2nd recomputing": (
        "llama",
        replace(BASE, targets=("q_proj", "v_proj"), rank=8, gradient_checkpointing=2, micro_batch=2),
    ),
    "lora in bf16 with dropout": ("qwen3", replace(BASE, compute_dtype="bf16", dropout=0.1)),
    "qlora, recomputing": ("qwen3", replace(BASE, method="qlora", gradient_checkpointing=1, sequence_length=1024)),
    "full, accumulating": ("qwen3", replace(BASE, method="full", gradient_accumulation=2)),
    "full in bf16, recomputing": (
        "llama",
        replace(BASE, method="full", compute_dtype="bf16", gradient_checkpointing=1),
    ),
    "full, adafactor, few tokens": (
        "llama",
        replace(BASE, method="full", optimizer="adafactor", sequence_length=32),
    ),
    "four norms and windows": ("gemma3", replace(BASE, method="full", sequence_length=256)),
    "four norms in bf16, recomputing": (
        "gemma3",
        replace(BASE, compute_dtype="bf16", gradient_checkpointing=1, sequence_length=1024),
    ),
    "partial in bf16": ("llama", replace(BASE, method="partial", trained_layers=2, compute_dtype="bf16")),
    "experts": ("mixtral", replace(BASE, gradient_checkpointing=1)),
    "experts that learn": ("mixtral", replace(BASE, method="full", sequence_length=128)),
    "layer norms and dropout": ("gpt2", replace(BASE, method="full")),
    "lora beside Conv1D": ("gpt2", BASE),
    "pairs": ("llama", replace(BASE, objective="dpo", sequence_length=256)),
    "pairs, every weight, recomputing": (
        "qwen3",
        replace(BASE, objective="orpo", method="full", gradient_checkpointing=1, sequence_length=256),
    ),
    "thumbs": ("llama", replace(BASE, objective="kto", compute_dtype="bf16", micro_batch=2, sequence_length=256)),
    "classes": ("llama", replace(BASE, objective="classification")),
    "classes, every weight": ("qwen3", replace(BASE, objective="classification", method="full", sequence_length=256)),
    "vectors": ("llama", replace(BASE, objective="embedding", method="qlora", sequence_length=256)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_estimate_is_what_torch_allocates(folders: dict[str, Path], case: str) -> None:
    model, settings = CASES[case]
    measured = allocated_by_training(folders[model], settings)
    predicted = of_training(estimate(read_geometry(folders[model]), settings).phases)
    # Held to less than the 3 % that is promised, so that a part that is left out shows on models this small.
    assert predicted == pytest.approx(measured, rel=0.01), f"{predicted / measured - 1:+.2%}"


MEASURING = {
    "lora": ("llama", replace(BASE, sequence_length=256, loss_chunk=1024, answers=12, max_new_tokens=48)),
    "full in bf16": ("llama", replace(BASE, method="full", compute_dtype="bf16", answers=6, max_new_tokens=64)),
}


@pytest.mark.parametrize("case", MEASURING)
def test_held_out_loss_and_answers_take_no_more_than_estimated(folders: dict[str, Path], case: str) -> None:
    name, settings = MEASURING[case]
    forget_masks()
    dtype = TORCH_DTYPES[settings.weight_dtype]
    model = load_base(folders[name], dtype=dtype, device="cpu")
    model = make_trainable(model, method_section(settings))
    step = TrainingStep.of(model, settings, make_optimizer, settings.attention)
    model.generation_config.eos_token_id = None  # random answers are to reach their longest
    geometry = read_geometry(folders[name])
    predicted = estimate(geometry, settings).phases
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=settings.autocast, cache_enabled=False)
    width = settings.sequence_length - settings.max_new_tokens
    prompts = [np.full(width, 5, np.int32)] * settings.answers
    live = LiveBytes()
    with live, autocast:
        count_tensors(live, model, step)
        judge_held_out(NextToken(step.forward), [step.batch], torch.device("cpu"))
        measured = {"evaluation": live.take_peak()}
        gc.collect()
        live.take_peak()
        step.forward.use_plain_attention()
        generate_answers(
            model,
            SimpleNamespace(pad_token_id=0, decode=lambda ids, skip_special_tokens: ""),
            prompts,
            token_budget=settings.tokens,
            max_new_tokens=settings.max_new_tokens,
            stop_tokens=[],
        )
        measured["answers"] = live.take_peak()
    for phase, peak in measured.items():
        expected = predicted[phase] - optimizer_bytes(geometry, settings)  # no step was taken, so there is none
        assert 0.99 * peak < expected < 1.05 * peak, f"{phase}: {expected / peak - 1:+.1%}"


def test_the_file_of_a_model_that_is_converted_is_not_counted(tmp_path: Path) -> None:
    geometry = read_geometry(make_model(tmp_path / "m"))
    converted = replace(BASE, compute_dtype="bf16" if geometry.dtype == "F32" else "fp32")
    found = estimate(geometry, converted)
    assert found.phases["loading"] < found.phases["saving"]
    assert any("the model's file" in reason for reason in found.reasons)
    same = replace(BASE, compute_dtype="fp32" if geometry.dtype == "F32" else "bf16")
    assert not any("the model's file" in reason for reason in estimate(geometry, same).reasons)


def test_more_is_left_in_the_heap_where_layers_recompute_but_for_pieces_that_it_never_holds(tmp_path: Path) -> None:
    geometry = read_geometry(make_model(tmp_path / "m"))

    def context(length: int, every: int) -> int:
        settings = replace(BASE, sequence_length=length, gradient_checkpointing=every)
        return estimate(geometry, settings).components["context"]

    libraries = context(16, 0)
    assert context(4096, 1) > context(1024, 1) > libraries
    longest = (32 << 20) // (4 * geometry.hidden_size)
    assert context(2 * longest, 1) - context(longest, 1) < context(longest, 1) / 2


KNOWN: list[Path] = []


@pytest.fixture(scope="module", autouse=True)
def known(tmp_path_factory: pytest.TempPathFactory) -> None:
    KNOWN.append(make_model(tmp_path_factory.mktemp("known") / "m"))


def test_components_add_up_and_follow_the_settings(tmp_path: Path) -> None:
    geometry = read_geometry(make_model(tmp_path / "m", {"vocab_size": 5000}))

    def part(name: str, **changes: Any) -> int:
        found = estimate(geometry, replace(BASE, **changes))
        assert tuple(found.components) == COMPONENTS and min(found.components.values()) >= 0
        assert sum(found.components.values()) == found.peak_bytes
        return found.components[name]

    parameters = geometry.parameters
    # And some bytes of rotary tables and step counters.
    assert part("weights", method="full") == pytest.approx(4 * parameters, abs=200)
    assert part("optimizer", method="full") == pytest.approx(8 * parameters, abs=200)
    assert part("weights", compute_dtype="bf16", device="cuda") == pytest.approx(2 * parameters, abs=200)
    assert part("weights", method="qlora") < part("weights")
    assert part("adapters", rank=32) == 2 * part("adapters", rank=16)
    assert part("adapters", method="full") == 0
    assert part("activations", sequence_length=1024) == 2 * part("activations", sequence_length=512)
    assert part("activations", attention="eager") > part("activations")
    assert part("loss", loss_chunk=64) < part("loss", loss_chunk=512)
    assert part("optimizer", method="full", optimizer="adamw_8bit") < part("optimizer", method="full") / 3
    assert part("optimizer", method="full", optimizer="adafactor") < part("optimizer", method="full") / 20


GPU = replace(BASE, device="cuda", compute_dtype="bf16", attention="varlen", gradient_checkpointing=1)
settings_of_all_kinds = st.builds(
    Settings,
    method=st.sampled_from(["lora", "qlora", "partial", "full"]),
    device=st.sampled_from(["cpu", "cuda"]),
    compute_dtype=st.sampled_from(["fp32", "bf16"]),
    attention=st.sampled_from(["varlen", "sdpa", "eager"]),
    sequence_length=st.integers(1, 4096),
    micro_batch=st.integers(1, 8),
    gradient_accumulation=st.integers(1, 3),
    rank=st.integers(1, 64),
    trained_layers=st.integers(1, 3),
    optimizer=st.sampled_from(["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "adafactor"]),
    gradient_checkpointing=st.integers(0, 3),
    offload_checkpoints=st.booleans(),
    loss_chunk=st.integers(16, 4096),
    answers=st.integers(0, 40),
)


@given(settings=settings_of_all_kinds)
def test_more_of_anything_never_takes_less(settings: Settings) -> None:
    geometry = read_geometry(KNOWN[0])
    found = estimate(geometry, settings)
    assert found.peak_bytes == sum(found.components.values()) and min(found.components.values()) >= 0
    assert found.allocated_bytes == max(found.phases.values()) == found.phases[found.phase]
    assert trainable_parameters(geometry, settings) == sum(trainable_elements(geometry, settings))
    for change in (
        {"sequence_length": settings.sequence_length + 64},
        {"micro_batch": settings.micro_batch + 1},
        # With one chunk only, full tuning's head needs no second gradient to sum.
        {} if settings.method == "full" else {"loss_chunk": settings.loss_chunk * 2},
        # From 4,096 numbers on a matrix's moments take a quarter in 8 bits.
        {} if "8bit" in settings.optimizer else {"rank": settings.rank + 1},
    ):
        assert of_training(estimate(geometry, replace(settings, **change)).phases) >= of_training(found.phases)


def test_what_waits_in_ram_is_not_counted_on_the_gpu(tmp_path: Path) -> None:
    geometry = read_geometry(make_model(tmp_path / "m", {"num_hidden_layers": 8}))
    here = estimate(geometry, replace(GPU, sequence_length=4096))
    there = estimate(geometry, replace(GPU, sequence_length=4096, offload_checkpoints=True))
    assert there.allocated_bytes < here.allocated_bytes
    assert there.host_bytes - here.host_bytes == 8 * 4096 * geometry.hidden_size * 2
    assert estimate(geometry, BASE).host_bytes == 0
    assert estimate(geometry, GPU, (9, 0)).components["context"] > estimate(geometry, GPU, (7, 5)).components["context"]


def test_a_model_the_formulas_were_not_made_for_says_so(tmp_path: Path) -> None:
    known = read_geometry(make_model(tmp_path / "known"))
    other = read_geometry(make_model(tmp_path / "other", {**LLAMA, "model_type": "phimoe", "num_experts": 4}))
    assert estimate(other, BASE).error_share > 2 * estimate(known, BASE).error_share
    assert any("phimoe" in reason for reason in estimate(other, BASE).reasons)
