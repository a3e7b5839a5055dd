"""Predicted speeds: how they move with the settings, how they compare with published runs, and whose rates they use."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.geometry import Geometry, geometry_of_config
from profiles.hardware import Cpu, Disk, Hardware, Ram
from profiles.hardware_file import hypothetical, with_vram
from profiles.model_catalogue import catalogue_geometry
from profiles.settings import Settings
from profiles.shapes.model_config import parse_config
from profiles.speed import Rates, SpeedEstimate, estimate_speed, geometry_key, rates_of

GIB = 1 << 30
LLAMA_8B = catalogue_geometry("meta-llama/Llama-3.1-8B")
LLAMA_3B = catalogue_geometry("meta-llama/Llama-3.2-3B")
TINY = catalogue_geometry("HuggingFaceTB/SmolLM2-135M")
UNLIKE = ["Qwen/Qwen3-30B-A3B", "google/gemma-3-1b-pt", "deepseek-ai/DeepSeek-V2-Lite", "openai-community/gpt2"]
A100 = rates_of(hypothetical("A100-SXM4-80GB"))
CPU_ONLY = Hardware("host", Cpu("cpu", 8, 16, False), Ram(32 * GIB, 32 * GIB), (), Disk(Path("/"), GIB, GIB), ())


def settings(method: str = "lora", **changes: Any) -> Settings:
    values: dict[str, Any] = {"device": "cuda", "compute_dtype": "bf16", "attention": "varlen", "sequence_length": 2048}
    return Settings(method=method, **values | changes)  # type: ignore[arg-type]


def speed(geometry: Geometry = LLAMA_8B, rates: Rates = A100, method: str = "lora", **changes: Any) -> float:
    return estimate_speed(geometry, settings(method, **changes), rates).tokens_per_second


def anything() -> st.SearchStrategy[Settings]:
    return st.builds(
        settings,
        method=st.sampled_from(["full", "partial", "lora", "qlora"]),
        compute_dtype=st.sampled_from(["fp32", "bf16", "fp16"]),
        attention=st.sampled_from(["varlen", "sdpa", "eager"]),
        sequence_length=st.integers(1, 1 << 17),
        micro_batch=st.integers(1, 64),
        gradient_accumulation=st.integers(1, 64),
        rank=st.integers(1, 256),
        dropout=st.sampled_from([0.0, 0.05]),
        targets=st.sampled_from(["all-linear", ("q_proj", "v_proj"), ("no_such_layer",)]),
        trained_layers=st.integers(1, 64),
        optimizer=st.sampled_from(["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "adafactor"]),
        gradient_checkpointing=st.integers(0, 40),
        offload_checkpoints=st.booleans(),
        loss_chunk=st.integers(16, 1 << 16),
    )


@given(
    anything(), st.sampled_from(["Qwen/Qwen3-30B-A3B", "google/gemma-3-1b-pt", "deepseek-ai/DeepSeek-V2-Lite", "gpt2"])
)
def test_more_work_at_once_is_never_slower_and_more_work_per_token_never_faster(asked: Settings, name: str) -> None:
    geometry = catalogue_geometry(name)

    def rate(**changes: Any) -> float:
        found = estimate_speed(geometry, replace(asked, **changes), A100)
        changed = replace(asked, **changes)
        assert math.isfinite(found.tokens_per_second) and found.tokens_per_second > 0 and found.reason
        step = changed.tokens * changed.gradient_accumulation
        assert found.tokens_per_second * found.seconds_per_step == pytest.approx(step)
        return found.tokens_per_second * (1 + 1e-9)

    now = rate()
    assert rate(micro_batch=2 * asked.micro_batch) >= now
    assert rate(gradient_accumulation=1, micro_batch=asked.micro_batch * asked.gradient_accumulation) >= now
    assert rate(rank=2 * asked.rank) <= rate()
    assert rate(gradient_checkpointing=1) <= rate(gradient_checkpointing=4) <= rate(gradient_checkpointing=0)
    assert rate(sequence_length=2 * asked.sequence_length) <= rate(micro_batch=2 * asked.micro_batch)
    assert rate(attention="eager") <= rate(attention="sdpa")


def test_methods_in_the_order_of_their_work() -> None:
    partial, lora, full = (speed(method=method, micro_batch=2) for method in ("partial", "lora", "full"))
    assert partial > lora > full
    assert speed(method="qlora", sequence_length=512) < 0.9 * speed(method="lora", sequence_length=512)
    assert speed(method="qlora", sequence_length=16384) > 0.95 * speed(method="lora", sequence_length=16384)


@pytest.mark.parametrize(("method", "least", "most"), [("full", 1.2, 1.4), ("lora", 1.3, 1.55)])
def test_recomputing_costs_another_forward(method: str, least: float, most: float) -> None:
    plain, half, all_ = (speed(method=method, micro_batch=4, gradient_checkpointing=every) for every in (0, 2, 1))
    assert least < plain / all_ < most
    assert plain / half == pytest.approx(1 + (plain / all_ - 1) / 2, rel=0.02)


def test_a_sliding_window_saves_attention_only_beyond_it() -> None:
    sliding, plain = (catalogue_geometry(f"mistralai/Mistral-7B-v0.{minor}") for minor in (1, 3))
    ratio = [speed(sliding, sequence_length=length) / speed(plain, sequence_length=length) for length in (4096, 65536)]
    assert ratio[0] == pytest.approx(1, rel=0.01) and ratio[1] > 1.5


def test_a_mixture_costs_what_it_uses_and_not_what_it_holds() -> None:
    mixture, dense = catalogue_geometry("Qwen/Qwen3-30B-A3B"), catalogue_geometry("Qwen/Qwen3-32B")
    assert 3 < speed(mixture, sequence_length=8192) / speed(dense, sequence_length=8192) < 12


def test_only_tokens_that_carry_loss_pay_for_the_head() -> None:
    few, all_ = (estimate_speed(LLAMA_3B, settings(), A100, share).tokens_per_second for share in (0.1, 1.0))
    assert 1.05 < few / all_ < 1.3


def test_what_bounds_a_step_is_told() -> None:
    def bound(geometry: Geometry, **changes: Any) -> SpeedEstimate:
        return estimate_speed(geometry, settings(**changes), rates_of(hypothetical("H100 SXM")))

    assert bound(LLAMA_8B, micro_batch=8).bound == "compute"
    assert bound(TINY, sequence_length=256).bound == "overhead"
    packed = bound(LLAMA_8B, method="qlora", sequence_length=128, micro_batch=1, optimizer="adamw")
    assert packed.bound in ("memory", "overhead")
    assert bound(LLAMA_8B, micro_batch=8).reason.startswith("compute-bound: ")
    on_cpu = estimate_speed(TINY, settings(device="cpu", compute_dtype="fp32"), rates_of(CPU_ONLY))
    assert on_cpu.reason.startswith("this CPU: ") and " % of the time" in on_cpu.reason


# Published runs of other trainers on one GPU. torchtune's README (packed, torch.compile, whose fused element-wise
# kernels our eager engine does not have), its optimization table's eager row, and the table in Qwen's README (eager
# transformers with peft and DeepSpeed, batch 1, accumulation 8, recomputing; older software).
QWEN_7B = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "num_hidden_layers": 32,
    "num_attention_heads": 32, "intermediate_size": 11008, "vocab_size": 151936, "tie_word_embeddings": False,
}  # fmt: skip
EIGHT = {"micro_batch": 2, "rank": 8, "gradient_checkpointing": 1}
THREE = {"micro_batch": 2, "sequence_length": 4096}
QWEN = {"gradient_accumulation": 8, "rank": 64, "dropout": 0.05, "gradient_checkpointing": 1}
PUBLISHED = [
    ("RTX 4090", "8B", "lora", EIGHT, 3083, 0.65, 1.0),
    ("RTX 4090", "8B", "qlora", EIGHT, 2413, 0.65, 1.0),
    ("A100-SXM4-80GB", "3B", "full", THREE, 7075, 0.8, 1.25),
    ("A100-SXM4-80GB", "3B", "full", THREE, 9174, 0.65, 1.0),
    ("A100-SXM4-80GB", "3B", "full", THREE | {"gradient_checkpointing": 1}, 7210, 0.65, 1.0),
    ("A100-SXM4-80GB", "3B", "lora", THREE | {"rank": 64, "gradient_checkpointing": 1}, 8210, 0.65, 1.0),
    ("A100-SXM4-80GB", "3B", "qlora", THREE | {"rank": 64, "gradient_checkpointing": 1}, 8035, 0.65, 1.0),
    ("A100-SXM4-80GB", "qwen", "lora", QWEN | {"sequence_length": 512}, 8 * 512 / 1.5, 0.9, 1.5),
    ("A100-SXM4-80GB", "qwen", "lora", QWEN | {"sequence_length": 2048}, 8 * 2048 / 5.2, 0.9, 1.35),
    ("A100-SXM4-80GB", "qwen", "lora", QWEN | {"sequence_length": 8192}, 8 * 8192 / 21.3, 0.9, 1.35),
    ("A100-SXM4-80GB", "qwen", "qlora", QWEN | {"sequence_length": 8192}, 8 * 8192 / 22.3, 0.9, 1.35),
]


@pytest.mark.parametrize(("card", "model", "method", "changes", "published", "least", "most"), PUBLISHED)
def test_published_speeds(
    card: str, model: str, method: str, changes: dict[str, Any], published: float, least: float, most: float
) -> None:
    qwen = geometry_of_config(Path("qwen"), parse_config(Path("config.json"), QWEN_7B))
    assert qwen is not None
    geometry = {"8B": LLAMA_8B, "3B": LLAMA_3B, "qwen": qwen}[model]
    assert least < speed(geometry, rates_of(hypothetical(card)), method, **changes) / published < most


def test_measured_rates_win_and_damaged_ones_are_passed_over() -> None:
    guessed = rates_of(CPU_ONLY)
    measured = {"matmul_flops": {"fp32": 5e11, "bf16": "fast"}, "bandwidth_bytes_per_second": 4e10, "half_width": -1}
    rates = rates_of(CPU_ONLY, measured)
    assert rates.matmul_flops["fp32"] == 5e11 and rates.matmul_flops["bf16"] == guessed.matmul_flops["bf16"]
    assert (rates.bandwidth_bytes_per_second, rates.half_width) == (4e10, guessed.half_width)
    assert rates.error_share < guessed.error_share and "benchmark" in rates.source
    busy = rates_of(CPU_ONLY, measured | {"busy": True})
    assert rates.error_share < busy.error_share and "busy" in busy.source
    for damaged in ({"matmul_flops": 3}, {"matmul_flops": {"fp32": True}}, {"corrections": {"lora": "x"}}, {}):
        assert rates_of(CPU_ONLY, damaged) == guessed


def test_what_runs_taught_is_for_their_method_and_closer_for_their_model() -> None:
    known = {"corrections": {"lora": 0.8, f"lora {geometry_key(LLAMA_8B)}": 0.5}}
    plain, learnt = A100, rates_of(hypothetical("A100-SXM4-80GB"), known)
    assert speed(LLAMA_8B, learnt) == pytest.approx(0.5 * speed(LLAMA_8B, plain))
    assert speed(LLAMA_3B, learnt) == pytest.approx(0.8 * speed(LLAMA_3B, plain))
    assert speed(LLAMA_3B, learnt, "full") == speed(LLAMA_3B, plain, "full")
    shares = [estimate_speed(each, settings(), learnt).error_share for each in (LLAMA_8B, LLAMA_3B)]
    assert shares[0] < shares[1] < plain.error_share


def test_rates_of_cards_that_are_in_no_catalogue_and_of_slices() -> None:
    unnamed = rates_of(with_vram(CPU_ONLY, 24 * GIB))
    assert unnamed.error_share > A100.error_share
    assert 20e12 < unnamed.matmul_flops["bf16"] < 300e12
    whole = hypothetical("A100-SXM4-80GB")
    part = replace(whole, gpus=(replace(whole.gpus[0], name="NVIDIA A100-SXM4-80GB MIG 3g.40gb"),))
    assert rates_of(part).matmul_flops["bf16"] == pytest.approx(3 / 7 * A100.matmul_flops["bf16"])
    assert rates_of(part).bandwidth_bytes_per_second == pytest.approx(A100.bandwidth_bytes_per_second / 2)
    # Half precision without units for it runs in fp32, not at the card's own 1/64 rate.
    pascal = rates_of(hypothetical("GTX 1080 Ti")).matmul_flops
    assert pascal["fp16"] == pascal["fp32"] > 5e12
