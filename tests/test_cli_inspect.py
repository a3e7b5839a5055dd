"""`finetui inspect` tells what a model is: here or not yet, plain or not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import Finetui

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
}


@pytest.fixture
def finetui(tmp_path: Path) -> Finetui:
    return Finetui(tmp_path / "home")


def alone(folder: Path, **fields: object) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**SMALL, **fields}))
    return folder


def lines(text: str) -> dict[str, str]:
    """{label: text} of what `inspect` prints."""
    return {line[:11].strip(): line[12:] for line in text.splitlines()}


def test_a_model_of_the_catalogue(finetui: Finetui) -> None:
    shown = finetui("inspect", "qwen/qwen3-30b-a3b")
    facts = lines(shown.stdout)
    assert (shown.status, facts["model"]) == (0, "Qwen/Qwen3-30B-A3B")
    assert facts["parameters"] == "30.5 B, of which a token passes 3.4 B"
    assert facts["experts"] == "128 a layer, 768 wide, 8 for each token"
    assert "not on this machine" in facts["note"] and "apache-2.0" in facts["note"]
    told = finetui("inspect", "Qwen3-30B-A3B", "--json").json()
    assert told["geometry"]["active_parameters"] == 3_353_032_704
    assert (told["geometry"]["source"], told["problems"]) == ("catalogue", [])


def test_a_name_that_is_nothing(finetui: Finetui) -> None:
    shown = finetui("inspect", "qwen/qwen3-9b")
    assert shown.status == 2 and "Qwen/Qwen3-8B" in shown.stderr and "Traceback" not in shown.stderr


@pytest.mark.parametrize(
    ("fields", "label", "text"),
    [
        ({"model_type": "gemma2", "sliding_window": 64}, "attention", "grouped-query, 64 tokens back in 2 of 4 layers"),
        ({"model_type": "mistral", "num_key_value_heads": 1, "sliding_window": None}, "attention", "multi-query"),
        ({"model_type": "deepseek_v2", "n_routed_experts": 4}, "attention", "latent"),
        (
            {"model_type": "llama", "quantization_config": {"quant_method": "gptq", "bits": 4}},
            "weights",
            "quantised (gptq, 4 bits)",
        ),
    ],
)
def test_what_a_config_alone_tells(
    finetui: Finetui, tmp_path: Path, fields: dict[str, object], label: str, text: str
) -> None:
    shown = finetui("inspect", alone(tmp_path / "m", **fields))
    assert lines(shown.stdout)[label] == text
    assert shown.status == 2 and "has no weights" in shown.stderr


def test_an_architecture_that_only_transformers_knows(finetui: Finetui, tmp_path: Path) -> None:
    folder = alone(tmp_path / "m", model_type="lfm2", layer_types=["conv", "conv", "conv", "full_attention"])
    shown = finetui("inspect", folder)
    assert lines(shown.stdout)["attention"] == "grouped-query in 1 of 4 layers"
    unknown = finetui("inspect", alone(tmp_path / "n", model_type="frobnicate"))
    assert unknown.status == 2 and "does not know" in unknown.stderr and "Traceback" not in unknown.stderr
