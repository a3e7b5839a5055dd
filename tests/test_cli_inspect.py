"""`finetui inspect` tells what a model is: here or not yet, plain or not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import Finetui
from tiny import make_tokenizer

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


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("model"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"prompt": f"What is {number}?", "completion": "It is a city of rain."} for number in range(30)]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_row_as_a_model_will_learn_it(finetui: Finetui, model: Path, data: Path) -> None:
    shown = finetui("inspect", data, "--model", model, "--row", 3)
    assert shown.status == 0, shown.stderr
    drawn = shown.stdout.splitlines()
    at = drawn.index("line 3, learning answers, at most 1,024 tokens:")
    assert [line.split()[:2] for line in drawn[at + 2 : -2] if line[:2] == "  " != line[1:3]] == [
        ["○", "masked"],
        ["●", "learnt"],
        ["■", "end"],
        ["○", "masked"],
    ]
    assert any(line.replace("│", "").endswith("It is a city of rain.") for line in drawn)
    told = finetui("inspect", data, "--model", model, "--row", 3, "--train-on", "everything", "--json").json()
    (sequence,) = told["xray"]["sequences"]
    text = "".join(token["text"] for token in sequence["tokens"])
    assert "What is 2?" in text and "It is a city of rain.<|im_end|>" in text
    assert sequence["counts"]["masked"] == 1 and told["tokens"]["rows"] == 30
    plain = finetui.with_environment(LC_ALL="C")("inspect", data, "--model", model, "--seq-len", 24)
    assert plain.stdout.isascii() and "  x cut" in plain.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--row", 99), "has no row at 99"),
        (("--seq-len", 2), "too short for any row"),
        (("--chat-template", "chatnl"), "no chat template that finetui knows"),
        (("--model", "/nowhere"), "is not a folder"),
    ],
)
def test_what_cannot_be_shown_is_told(finetui: Finetui, model: Path, data: Path, arguments, told: str) -> None:
    shown = finetui("inspect", data, "--model", model, *arguments)
    assert shown.status == 2 and told in shown.stderr and "Traceback" not in shown.stderr


def test_a_model_without_a_template_is_offered_one(finetui: Finetui, tmp_path: Path) -> None:
    bare = make_tokenizer(tmp_path / "bare", template=None)
    data = tmp_path / "chats.jsonl"
    turns = [{"role": role, "content": "x y"} for role in ("user", "assistant", "user", "assistant")]
    data.write_text(json.dumps({"messages": turns}) + "\n")
    shown = finetui("inspect", data, "--model", bare)
    assert shown.status == 2 and "Give --chat-template chatml: the model has its special tokens" in shown.stderr
    assert finetui("inspect", data, "--model", bare, "--chat-template", "chatml").status == 0


def test_data_comes_from_folders_and_stdin_too(finetui: Finetui, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    data.rename(folder / "a.jsonl")
    assert lines(finetui("inspect", folder).stdout)["rows"] == "30"
    told = finetui("inspect", "-", "--json", stdin="question,answer\nCapital?,Paris\nAnd you?,Fine\n").json()
    assert (told["format"], told["rows"], told["kind"]) == ("csv", 2, "conversation")


def test_a_folder_whose_files_lie_in_folders_is_data(finetui):
    handbook = Path(__file__).parent / "data" / "samples" / "handbook"
    told = finetui("inspect", handbook, "--json").json()
    assert (told["rows"], told["kind"]) == (16, "text")
