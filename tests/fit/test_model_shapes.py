"""The shapes that formulas and the child process give are the ones transformers itself builds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.fit import models, shapes
from engine.fit.models import find_model
from engine.fit.shapes_child import describe
from engine.seal import sealing
from profiles.geometry import Geometry
from profiles.model_catalogue import catalogue_models
from profiles.problem import Problem
from profiles.shapes.architectures import FAMILIES, expand
from profiles.shapes.config_defaults import defaults_of
from profiles.shapes.config_fields import ALIASES
from profiles.shapes.model_config import parse_config

SMALL = {
    "vocab_size": 304,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
GPT = {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128, "vocab_size": 300}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
    "shared_expert_intermediate_size": 80,
}
LATENT = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 20,
}
BIASES = ("attention_bias", "mlp_bias", "use_bias", "use_qkv_bias", "attention_out_bias", "qkv_bias", "bias")
ODD: dict[str, dict[str, Any]] = {
    "as small as can be told": {},
    "tied, one head for keys and values": {"tie_word_embeddings": True, "num_key_value_heads": 1},
    "untied, no biases": {"tie_word_embeddings": False, **dict.fromkeys(BIASES, False)},
    "biases, heads of their own width": {**dict.fromkeys(BIASES, True), "head_dim": 24},
    "windows": {"sliding_window": 32, "use_sliding_window": True, "max_window_layers": 2},
    "some layers dense": {"mlp_only_layers": [0], "decoder_sparse_step": 2, "q_lora_rank": None},
    "parallel": {"use_parallel_residual": True, "use_qk_norm": True},
}
LEFT_TO_THE_CHILD = {("cohere", "parallel"), ("cohere2", "parallel"), ("olmoe", "biases, heads of their own width")}
MIXTURES = ("moe", "mixtral", "gpt_oss")


def odd_config(family: str, odd: str) -> dict[str, Any]:
    values: dict[str, Any] = {"model_type": family, **(GPT if family in ("gpt2", "gpt_bigcode") else SMALL)}
    if "deepseek" in family or family == "glm4_moe":
        values |= {name: value for name, value in LATENT.items() if family != "glm4_moe" or "rank" not in name}
    elif any(word in family for word in MIXTURES):
        values |= EXPERTS
    if family == "granitemoe":
        values["num_local_experts"] = values.pop("num_experts")
    values |= ODD[odd]
    if "deepseek" in family:
        values.pop("head_dim", None)
        values["num_key_value_heads"] = 4
    return values


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_formula_is_what_transformers_builds(family: str, odd: str) -> None:
    values = odd_config(family, odd)
    config = parse_config(Path("config.json"), values)
    tensors = expand(config)
    if tensors is None:
        assert (family, odd) in LEFT_TO_THE_CHILD
        return
    built = describe(values)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        name: tuple(shape) for name, shape in built["tensors"].items()
    }
    geometry = Geometry(Path(family), config, built["tied"], tensors)
    assert set(geometry.quantisable_shapes) == set(built["linear"])
    assert ("lm_head.weight" in tensors) is not built["tied"]
    told = built["config"]
    assert list(config.layer_types) == told.get("layer_types", list(config.layer_types))
    assert (config.layers, config.hidden_size, config.heads) == (
        told["num_hidden_layers"],
        told["hidden_size"],
        told["num_attention_heads"],
    )
    if config.latent is None and family != "gpt_bigcode":
        assert config.kv_heads == told.get("num_key_value_heads", config.heads)
    assert config.sliding_window in (None, told.get("sliding_window"))
    assert config.activation == told["hidden_act"]
    assert config.experts == told.get("num_experts", config.experts)


@pytest.mark.slow
@pytest.mark.parametrize("name", [model.name for model in catalogue_models()])
def test_the_catalogue_is_what_transformers_builds(name: str) -> None:
    geometry = find_model(name)
    built = describe(dict(geometry.config.values))
    assert {name: list(tensor.shape) for name, tensor in geometry.tensors.items()} == built["tensors"]
    assert list(geometry.config.layer_types) == built["config"].get("layer_types", list(geometry.config.layer_types))
    assert geometry.config.sliding_window in (None, built["config"].get("sliding_window"))


@pytest.mark.parametrize("family", FAMILIES)
def test_absent_fields_are_what_transformers_takes(family: str) -> None:
    from transformers import CONFIG_MAPPING

    taken = CONFIG_MAPPING[family]()
    if hasattr(taken, "use_sliding_window"):  # without it the class hides its window
        taken = CONFIG_MAPPING[family](use_sliding_window=True)
    for field, value in defaults_of(family).items():
        names = [name for name in (field, *ALIASES.get(field, ())) if hasattr(taken, name)]
        if field == "sliding_window_pattern" or not names:
            continue
        assert value in [getattr(taken, name) for name in names], field


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    return tmp_path


def folder(home: Path, values: dict[str, Any], name: str = "m") -> Path:
    path = home / name
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(values))
    return path


def no_child(*_: object, **__: object) -> None:
    raise AssertionError("no child process was to be started")


FALCON = {
    "model_type": "falcon",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 300,
}


def test_what_no_formula_covers_is_asked_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(home, FALCON | {"torch_dtype": "bfloat16"})
    geometry = find_model(path)
    assert (geometry.source, geometry.tied, geometry.dtype) == ("config", True, "BF16")
    assert (geometry.config.kv_heads, geometry.config.activation) == (1, "gelu")
    assert geometry.parameters == sum(map(_elements, describe(FALCON)["tensors"].values()))
    assert geometry.linear_shapes["transformer.h.0.self_attention.query_key_value"] == (64, 64 + 2 * 16)
    monkeypatch.setattr(sealing, "GroupProcess", no_child)
    assert find_model(path) == geometry
    (kept,) = (home / "home" / "cache" / "shapes").iterdir()
    kept.write_text('{"tensors": [1]}')
    with pytest.raises(AssertionError):  # a damaged answer is asked anew
        find_model(path)


def _elements(shape: list[int]) -> int:
    return shape[0] if len(shape) == 1 else shape[0] * shape[1]


def test_towers_are_counted_apart_also_without_a_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUI_CACHE", "/proc/nowhere")  # no folder can be made there, sealed or not
    text = {**SMALL, "model_type": "gemma3_text", "head_dim": 16}
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    path = folder(home, {"model_type": "gemma3", "text_config": text, "vision_config": vision})
    geometry, alone = find_model(path), find_model(folder(home, text, "alone"))
    assert geometry.parameters == alone.parameters and geometry.vision_parameters > 0
    assert geometry.config.vision and geometry.model_type == "gemma3_text"
    assert set(geometry.linear_shapes.values()) == set(alone.linear_shapes.values())
    assert not any("vision" in name for name in geometry.linear_shapes)


def test_what_transformers_cannot_build_is_told(home: Path) -> None:
    with pytest.raises(Problem, match="frobnicate") as raised:
        find_model(folder(home, {**FALCON, "model_type": "frobnicate\x1b[2J"}))
    assert raised.value.where.endswith("field model_type") and "\x1b" not in str(raised.value)
    with pytest.raises(Problem, match=r"refuses this falcon config.*hidden_size"):
        find_model(folder(home, {**FALCON, "hidden_size": "64"}))
    with pytest.raises(Problem, match="no causal language model"):
        find_model(folder(home, {**FALCON, "model_type": "vit"}))


def test_what_is_plainly_wrong_starts_no_child(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "GroupProcess", no_child)
    for changes, field in (({"num_hidden_layers": 10**9}, "num_hidden_layers"), ({"model_type": ["a"]}, "model_type")):
        with pytest.raises(Problem, match=field):
            find_model(folder(home, FALCON | changes))


def test_a_child_that_hangs_or_dies_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(home, FALCON)
    with pytest.raises(Problem, match="did not build within 0 s"):
        find_model(path, timeout_seconds=0.01)
    monkeypatch.setattr(shapes, "module_command", lambda *_: ["false"])
    with pytest.raises(Problem, match="exit status 1"):
        find_model(path)


def test_a_name_is_found_whatever_its_case(tmp_path: Path) -> None:
    known = find_model("Qwen/Qwen3-8B")
    assert find_model("qwen/qwen3-8b-base") == find_model(" Qwen3-8B ") == known
    assert (known.source, known.parameters, known.path) == ("catalogue", 8_190_735_360, Path("Qwen/Qwen3-8B"))
    with pytest.raises(Problem) as raised:
        find_model("Qwen/Qwen3-9B")
    assert "Qwen/Qwen3-8B" in raised.value.fix
    for nonsense in ("", "no such thing at all", "a\0b", "x" * 5000, str(tmp_path / "absent")):
        with pytest.raises(Problem, match="neither a folder"):
            find_model(nonsense)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(Problem):
        find_model(tmp_path / "loop")


def test_a_config_alone_is_enough_and_a_damaged_weight_file_is_told(home: Path) -> None:
    path = folder(home, {"model_type": "llama", **SMALL, "tie_word_embeddings": True})
    geometry = find_model(path)
    assert geometry.source == "config" and geometry.tied
    (path / "model.safetensors").write_bytes(b"12345")
    with pytest.raises(Problem, match="cut off"):
        find_model(path)


ANYTHING = (
    st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats() | st.text(max_size=8) | st.just([]) | st.just({})
    | st.lists(st.integers(-1, 9) | st.text(max_size=3), max_size=5)
)  # fmt: skip
SIZES = st.one_of(st.integers(1, 600), ANYTHING)
FIELDS = [
    *SMALL, *EXPERTS, *LATENT, *BIASES, "head_dim", "layer_types", "sliding_window", "use_sliding_window",
    "sliding_window_pattern", "mlp_only_layers", "decoder_sparse_step", "tie_word_embeddings", "text_config",
    "quantization_config", "torch_dtype", "hidden_act", "multi_query", "n_inner", "architectures",
]  # fmt: skip


@pytest.fixture
def childless(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise Problem(str(path), "was given to transformers", "No fix.")

    monkeypatch.setattr(models, "model_shapes", refuse)
    yield home


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(sorted(FAMILIES)), st.dictionaries(st.sampled_from(FIELDS), SIZES, max_size=6))
def test_any_config_is_expanded_or_explained(childless: Path, family: str, changes: dict[str, Any]) -> None:
    path = folder(childless, odd_config(family, "as small as can be told") | changes)
    try:
        geometry = find_model(path)
    except Problem as problem:
        assert problem.where and problem.what and problem.fix
    else:
        assert 0 < geometry.active_parameters <= geometry.parameters
        assert len(geometry.config.layer_types) == geometry.layers
        json.dumps(geometry.as_dict())
