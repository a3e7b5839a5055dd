"""`finetui fit`, run as a person runs it: on weights, on a config.json alone, on a name, and what is none of these."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from command import Finetui

from engine.demo import MODEL_DIRECTORY, TRAIN_FILE

GIB = 1024**3
PROFILE_KEYS = {
    "name", "method", "fits", "peak_bytes", "budget_bytes", "breakdown", "settings", "trainable_parameters",
    "tokens_per_second", "seconds", "why",
}  # fmt: skip
COMPONENTS = ["weights", "adapters", "gradients", "optimizer", "activations", "loss", "context"]
# The shapes of Llama 3.1 8B, Qwen3 32B and Llama 3.1 70B.
SHAPES = {
    "8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    "32B": {"hidden_size": 5120, "intermediate_size": 25600, "num_hidden_layers": 64, "num_attention_heads": 64},
    "70B": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64},
}


def config_only(path: Path, shape: str = "8B", **changes: Any) -> Path:
    """A folder that holds a Llama's config.json and nothing else."""
    values = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **SHAPES[shape],
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        **changes,
    }
    path.mkdir()
    (path / "config.json").write_text(json.dumps({name: value for name, value in values.items() if value is not None}))
    return path


def fit(finetui: Finetui, *arguments: object) -> dict[str, Any]:
    result = finetui("fit", *arguments, "--json")
    assert result.status == 0, result.stderr
    return result.json()


def test_json_is_as_scripts_expect_it(finetui: Finetui, tmp_path: Path) -> None:
    found = fit(finetui, config_only(tmp_path / "m"), "--vram", "24GiB", "--seq-len", 4096)
    assert set(found) == {"hardware", "model", "profiles"}
    assert found["hardware"]["gpus"][0]["total_bytes"] == 24 * GIB
    assert found["model"]["parameters"] == 8_030_261_248
    for profile in found["profiles"]:
        assert set(profile) == PROFILE_KEYS
        assert list(profile["breakdown"]) == COMPONENTS
        assert sum(profile["breakdown"].values()) == profile["peak_bytes"]
        assert profile["settings"]["data"]["sequence_length"] == 4096
        assert profile["seconds"] is None and profile["why"]
    assert {profile["method"] for profile in found["profiles"]} == {"lora", "qlora", "partial", "full"}
    fitting = [profile["fits"] for profile in found["profiles"]]
    assert fitting == sorted(fitting, reverse=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_more_memory_never_takes_a_method_away(finetui: Finetui, tmp_path: Path, shape: str) -> None:
    model = config_only(tmp_path / "m", shape)
    found = fit(finetui, model, "--cards")["cards"]
    cards = {card["name"]: set(card["fits"]) for card in found if card["name"] != "this machine"}
    ladder = [cards[name] for name in ("RTX 4060", "RTX 3060", "RTX 4090", "RTX A6000", "A100 80GB PCIe")]
    for smaller, larger in itertools.pairwise(ladder):
        assert smaller <= larger
    assert ("qlora" in ladder[-1], "full" in ladder[-1]) == (True, shape == "8B")
    assert "qlora" in ladder[{"8B": 1, "32B": 2, "70B": 3}[shape]]


def test_a_table_has_a_bar_a_state_and_a_reason_for_each_profile(finetui: Finetui, tmp_path: Path) -> None:
    shown = finetui("fit", config_only(tmp_path / "m"), "--gpu", "RTX 4090").stdout
    assert "8.0 B parameters" in shown and "free on RTX 4090" in shown
    rows = [line for line in shown.splitlines() if "▐" in line]
    assert {row[0] for row in rows} == {"✓", "✗"}
    assert all(row.split("▐")[1].startswith("WW") for row in rows)
    assert "does not fit" in shown and "more than may be used" in shown
    assert "Planned for a machine that is not here" in shown
    plain = finetui("--ascii", "fit", tmp_path / "m", "--gpu", "RTX 4090").stdout
    assert plain.isascii() and "[WW" in plain


def test_data_gives_the_time(finetui: Finetui) -> None:
    found = fit(finetui, MODEL_DIRECTORY, "--data", TRAIN_FILE)
    assert all(profile["seconds"] > 0 for profile in found["profiles"] if profile["fits"])
    shown = finetui("fit", MODEL_DIRECTORY, "--data", TRAIN_FILE).stdout
    assert "rows, " in shown.splitlines()[0] and "  time  " in shown


def test_a_name_of_the_catalogue_needs_no_files(finetui: Finetui) -> None:
    found = fit(finetui, "qwen/qwen3-8b", "--vram", "80GiB")
    assert found["model"]["layers"] == 36
    assert finetui("fit", "Qwen/Qwen3-8C").stderr.count("Qwen/Qwen3-8B") == 1


def test_settings_are_priced_exactly(finetui: Finetui, tmp_path: Path) -> None:
    model = config_only(tmp_path / "m")
    spec = {
        "name": "mine",
        "model": {"path": str(model)},
        "data": {"train": [str(TRAIN_FILE)], "sequence_length": 3000},
        "method": {"kind": "qlora", "rank": 24},
        "train": {"micro_batch": 3, "gradient_checkpointing": 2},
    }
    (tmp_path / "mine.toml").write_text(tomli_w.dumps(spec))
    (profile,) = fit(finetui, model, "--vram", "24GiB", "--settings", tmp_path / "mine.toml")["profiles"]
    settings = profile["settings"]
    assert (profile["name"], profile["method"], settings["method"]["rank"]) == ("mine", "qlora", 24)
    # What the file does not say is as its run would have it, not as a plan would.
    assert (settings["data"]["sequence_length"], settings["optimizer"]["learning_rate"]) == (3000, 2e-4)
    assert (settings["train"]["micro_batch"], settings["train"]["gradient_accumulation"]) == (3, 1)
    # A plan's own settings, fed back, cost the same.
    plan = fit(finetui, model, "--vram", "24GiB")["profiles"][0]
    (tmp_path / "again.toml").write_text(tomli_w.dumps({"name": "again", **plan["settings"]}))
    (again,) = fit(finetui, model, "--vram", "24GiB", "--settings", tmp_path / "again.toml")["profiles"]
    assert again["breakdown"] == plan["breakdown"]


def test_models_are_listed_with_what_fits(finetui: Finetui) -> None:
    found = fit(finetui, "--models", "--vram", "12GiB", "--seq-len", 1024)["models"]
    assert len(found) >= 60
    by_name = {model["name"]: model["fits"] for model in found}
    assert "qlora" in by_name["Qwen/Qwen3-4B"] and "full" not in by_name["Qwen/Qwen3-8B"]
    peaks = by_name["openai-community/gpt2"]
    assert peaks == ["full", "partial", "lora", "qlora"]


def test_train_takes_the_profile_that_is_named(finetui: Finetui) -> None:
    inputs = ("train", "--model", MODEL_DIRECTORY, "--data", TRAIN_FILE, "--dry-run", "--json")
    planned = fit(finetui, MODEL_DIRECTORY, "--data", TRAIN_FILE)["profiles"]
    for profile in (planned[0], planned[2]):
        started = finetui(*inputs, "--profile", profile["name"])
        assert started.status == 0, started.stderr
        spec = started.json()["spec"]
        assert spec["method"]["kind"] == profile["method"]
        for field in ("micro_batch", "gradient_accumulation", "gradient_checkpointing"):
            assert spec["train"][field] == profile["settings"]["train"][field]
    unknown = finetui(*inputs, "--profile", "best of all")
    assert unknown.status == 2 and "best quality" in unknown.stderr


def wrong_model(folder: Path) -> list[object]:
    config_only(folder / "other", "70B")
    spec = {"name": "n", "model": {"path": "other"}, "data": {"train": ["d.jsonl"]}}
    (folder / "other.toml").write_text(tomli_w.dumps(spec))
    return ["m", "--settings", "other.toml"]


def newer_hardware(folder: Path) -> list[object]:
    (folder / "hardware.json").write_text('{"version": 99}')
    return ["m", "--hardware", "hardware.json"]


def settings_file(text: str):
    def make(folder: Path) -> list[object]:
        (folder / "settings.toml").write_text(text)
        return ["m", "--settings", "settings.toml"]

    return make


def config(**changes: Any):
    def make(folder: Path) -> list[object]:
        config_only(folder / "bad", **changes)
        return ["bad"]

    return make


def broken_config(folder: Path) -> list[object]:
    (folder / "bad").mkdir()
    (folder / "bad/config.json").write_text("{not json")
    return ["bad"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (lambda _: [], "needs a MODEL"),
        (lambda _: ["m", "--models"], "takes no MODEL"),
        (lambda _: ["nowhere"], "neither a folder here nor one of the"),
        (lambda _: ["m", "--vram", "-3"], "--vram"),
        (lambda _: ["m", "--vram", "lots"], "--vram"),
        (lambda _: ["m", "--vram", "24GiB", "--gpu", "RTX 4090"], "not allowed with"),
        (lambda _: ["m", "--gpu", "RTX 4091"], "RTX 4090"),
        (lambda _: ["m", "--seq-len", "4"], "--seq-len: is 4"),
        (lambda _: ["m", "--seq-len", "many"], "invalid int value"),
        (lambda _: ["m", "--seq-len", "200000"], "the model's context is 131,072"),
        (lambda _: ["m", "--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (lambda _: ["m", "--cards", "--replay"], "says nothing to --cards"),
        (newer_hardware, "version"),
        (wrong_model, "another model than"),
        (settings_file("[method"), "not valid TOML"),
        (settings_file("[method]\nrang = 3"), "rang"),
        (settings_file('[method]\nkind = "magic"'), "magic"),
        (config(hidden_size=-1), "hidden_size"),
        (config(num_hidden_layers=None), "num_hidden_layers"),
        (config(model_type="nothing-known"), "nothing-known"),
        (broken_config, "config.json"),
    ],
)
def test_bad_input_is_told_with_a_fix(finetui: Finetui, tmp_path: Path, monkeypatch, given, told: str) -> None:
    config_only(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    result = finetui("fit", *given(tmp_path))
    assert (result.status, result.stdout) == (2, ""), result.stderr
    assert told in result.stderr and "fix: " in result.stderr and "Traceback" not in result.stderr
