"""Models beyond plain ones: the catalogue, mixtures, latent attention, quantised checkpoints, towers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_folder import LLAMA, llama_tensors, make_model, write_raw

from profiles.geometry import Geometry, inspect_model
from profiles.model_catalogue import catalogue_geometry, catalogue_models, close_names, find_catalogue_model
from profiles.shapes.architectures import expand
from profiles.shapes.model_config import parse_config
from profiles.shapes.quantised_tensors import true_tensors
from profiles.shapes.safetensors_header import DTYPE_BITS, Tensor


def test_every_catalogued_shape_has_the_published_size() -> None:
    models = catalogue_models()
    assert len(models) >= 60
    names = [name.casefold() for model in models for name in (model.name, *model.variants)]
    assert len(set(names)) == len(names)
    for model in models:
        geometry = model.geometry()
        assert geometry.parameters == pytest.approx(model.parameters, rel=1e-4), model.name
        assert model.licence and (model.context_length or 0) >= 1024
        assert (geometry.source, str(geometry.path)) == ("catalogue", model.name)


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        # As their authors publish them, in units of 10^9.
        ("Qwen/Qwen3-30B-A3B", 30.5, 3.3),
        ("Qwen/Qwen3-235B-A22B", 235, 22),
        ("mistralai/Mixtral-8x7B-v0.1", 46.7, 12.9),
        ("mistralai/Mixtral-8x22B-v0.1", 141, 39),
        ("allenai/OLMoE-1B-7B-0924", 6.9, 1.3),
        ("Qwen/Qwen1.5-MoE-A2.7B", 14.3, 2.7),
        ("meta-llama/Llama-3.1-8B", 8.03, 8.03),
    ],
)
def test_a_token_passes_the_published_share(name: str, total: float, active: float) -> None:
    geometry = catalogue_geometry(name)
    assert geometry.parameters / 1e9 == pytest.approx(total, rel=0.01)
    assert geometry.active_parameters / 1e9 == pytest.approx(active, rel=0.03)


def test_names_are_found_and_offered() -> None:
    assert find_catalogue_model("LLAMA-3.1-8b-instruct") is find_catalogue_model("meta-llama/Llama-3.1-8B")
    assert find_catalogue_model("llama") is None
    assert close_names("llama-3.1-8", 2)[0] == "meta-llama/Llama-3.1-8B"
    assert close_names("zzzz", 3) == []


def test_the_catalogue_needs_nothing_heavy() -> None:
    code = (
        "import sys; from profiles.model_catalogue import catalogue_geometry\n"
        "print(catalogue_geometry('gpt2').parameters, sorted({'torch', 'transformers', 'pydantic'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == "124439808 []\n"


def write_header(path: Path, tensors: dict[str, tuple[str, list[int]]]) -> None:
    """A whole safetensors file of zeros."""
    header, reached = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = DTYPE_BITS[dtype]
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [reached, reached + size // 8]}
        reached += size // 8
    write_raw(path, json.dumps(header).encode(), bytes(reached))


def quantised(folder: Path, told: dict[str, Any], pack: Any) -> Geometry:
    """A Llama folder whose decoder's matrices are stored as `pack` gives: {suffix: (dtype, shape)} of one matrix."""
    make_model(folder, {"quantization_config": told})
    tensors: dict[str, tuple[str, list[int]]] = {}
    for name, shape in llama_tensors().items():
        module = name.removesuffix(".weight")
        if "_proj" in name:
            tensors |= {module + suffix: each for suffix, each in pack(*shape).items()}
        else:
            tensors[name] = ("F16", list(shape))
    write_header(folder / "model.safetensors", tensors)
    report = inspect_model(folder)
    assert "already quantised" in report.problems[0].what
    assert report.geometry is not None
    return report.geometry


PACKED: dict[str, tuple[dict[str, Any], Any]] = {
    "bitsandbytes": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bits": None},
        lambda out, into: {
            ".weight": ("U8", [out * into // 2, 1]),
            ".weight.absmax": ("F32", [out * into // 64]),
            ".weight.quant_map": ("F32", [16]),
            ".weight.quant_state.bitsandbytes__nf4": ("U8", [80]),
        },
    ),
    "gptq": (
        {"quant_method": "gptq", "bits": 4},
        lambda out, into: {
            ".qweight": ("I32", [into // 8, out]),
            ".qzeros": ("I32", [1, out // 8]),
            ".scales": ("F16", [1, out]),
            ".g_idx": ("I32", [into]),
        },
    ),
    "awq": (
        {"quant_method": "awq", "w_bit": 4},
        lambda out, into: {
            ".qweight": ("I32", [into, out // 8]),
            ".qzeros": ("I32", [1, out // 8]),
            ".scales": ("F16", [1, out]),
        },
    ),
    "fp8": (
        {"quant_method": "fp8"},
        lambda out, into: {".weight": ("F8_E4M3", [out, into]), ".weight_scale_inv": ("F32", [1, 1])},
    ),
    "compressed-tensors": (
        {"quant_method": "compressed-tensors", "bits": 4},
        lambda out, into: {
            ".weight_packed": ("I32", [out, into // 8]),
            ".weight_scale": ("F16", [out, 1]),
            ".weight_shape": ("I64", [2]),
        },
    ),
}


@pytest.mark.parametrize("method", PACKED)
def test_quantised_weights_count_their_true_elements(tmp_path: Path, method: str) -> None:
    plain = inspect_model(make_model(tmp_path / "plain", dtype="float16")).geometry
    assert plain is not None
    geometry = quantised(tmp_path / "m", *PACKED[method])
    assert (geometry.config.quantisation, geometry.config.quantisation_bits) == (method, 8 if method == "fp8" else 4)
    assert geometry.parameters == plain.parameters
    assert geometry.linear_shapes == plain.linear_shapes
    assert 0.3 < geometry.weight_bytes / plain.weight_bytes < 0.8


TENSORS = st.builds(
    Tensor,
    st.lists(st.integers(0, 70), max_size=4).map(tuple),
    st.sampled_from(["F32", "F16", "U8", "I8", "I32", "F8_E4M3", "F4"]),
)
ENDS = [".weight", ".weight.absmax", ".qweight", ".scales", ".weight_packed", "_blocks", "_scales", ".SCB", ""]


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.tuples(st.sampled_from("ab"), st.sampled_from(ENDS)).map("".join), TENSORS),
    st.none() | st.integers(1, 8),
)
def test_any_mix_of_packed_tensors_is_unpacked(stored: dict[str, Tensor], bits: int | None) -> None:
    found = true_tensors(stored, bits, {"a.weight": (7, 10)})
    assert not any(name.endswith(("absmax", "SCB", "scales")) for name in found)
    elements = sum(tensor.elements for tensor in stored.values())
    assert 0 <= sum(tensor.elements for tensor in found.values()) <= 32 * elements  # one bit of 32 at the most


MIXTRAL = {**LLAMA, "model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "num_local_experts": 4}


def test_experts_count_alike_stored_one_by_one(tmp_path: Path) -> None:
    config = MIXTRAL | {"num_experts_per_tok": 2}
    fused = expand(parse_config(tmp_path, config))
    assert fused is not None
    stored = {name: ("F32", list(tensor.shape)) for name, tensor in fused.items() if ".mlp." not in name}
    for layer in range(2):
        prefix = f"model.layers.{layer}.block_sparse_moe."
        stored[f"{prefix}gate.weight"] = ("F32", [4, 64])
        for expert in range(4):
            for name, shape in (("w1", [128, 64]), ("w2", [64, 128]), ("w3", [128, 64])):
                stored[f"{prefix}experts.{expert}.{name}.weight"] = ("F32", shape)
    folder = make_model(tmp_path / "m")
    (folder / "config.json").write_text(json.dumps(config))
    write_header(folder / "model.safetensors", stored)
    geometry, alone = inspect_model(folder).geometry, inspect_alone(tmp_path / "alone", config)
    assert geometry is not None and geometry.source == "files"
    assert geometry.parameters == alone.parameters
    assert geometry.active_parameters == alone.active_parameters == alone.parameters - alone.expert_parameters // 2
    assert geometry.linear_shapes == alone.linear_shapes and len(alone.linear_shapes) == 8


def inspect_alone(folder: Path, config: dict[str, Any]) -> Geometry:
    """What is told of a folder that holds nothing but `config`: a shape, and that there are no weights."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    report = inspect_model(folder)
    assert any("has no weights" in problem.what for problem in report.problems)
    assert report.geometry is not None and report.geometry.source == "config"
    return report.geometry


def test_a_tower_is_named_and_refused(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    text = {**LLAMA, "architectures": None}
    config = {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "text_config": text}
    (folder / "config.json").write_text(json.dumps(config))
    own = {f"language_model.{name}": ("F32", list(shape)) for name, shape in llama_tensors().items()}
    tower = {"vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight": ("F32", [10, 20])}
    write_header(folder / "model.safetensors", {**own, **tower})
    report = inspect_model(folder)
    plain = inspect_model(make_model(tmp_path / "plain")).geometry
    assert "reads more than text" in report.problems[0].what and plain is not None and report.geometry is not None
    assert (report.geometry.parameters, report.geometry.vision_parameters) == (plain.parameters, 200)
    assert len(report.geometry.linear_shapes) == len(plain.linear_shapes)


def test_layers_after_the_last_are_not_counted(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    plain = inspect_model(folder).geometry
    more = {name: ("F32", list(shape)) for name, shape in llama_tensors({**LLAMA, "num_hidden_layers": 3}).items()}
    write_header(folder / "model.safetensors", more)
    beyond = inspect_model(folder).geometry
    assert plain is not None and beyond is not None and beyond.parameters == plain.parameters


@pytest.mark.parametrize(
    ("changes", "kind", "window", "sliding"),
    [
        ({}, "grouped-query", None, 0),
        ({"num_key_value_heads": 1}, "multi-query", None, 0),
        ({"num_key_value_heads": None}, "multi-head", None, 0),
        ({"sliding_window": 64}, "grouped-query", None, 0),  # Llama looks at everything whatever its config says
        ({"model_type": "mistral"}, "grouped-query", 4096, 2),
        ({"model_type": "mistral", "sliding_window": None}, "grouped-query", None, 0),
        ({"model_type": "gemma2", "sliding_window": 64}, "grouped-query", 64, 1),
        ({"model_type": "qwen2", "sliding_window": 64, "use_sliding_window": False}, "grouped-query", None, 0),
        (
            {"model_type": "qwen2", "sliding_window": 64, "use_sliding_window": True, "max_window_layers": 1},
            "grouped-query",
            64,
            1,
        ),
        ({"model_type": "deepseek_v3"}, "latent", None, 0),
    ],
)
def test_how_layers_attend(changes: dict[str, Any], kind: str, window: int | None, sliding: int) -> None:
    config = parse_config(Path("config.json"), {**LLAMA, **changes})
    assert (config.attention_kind, config.sliding_window) == (kind, window)
    assert config.layer_types.count("sliding_attention") == sliding
