"""Runs in a child process: builds a config's model on the meta device and prints the shape of every parameter.

Reads a JSON object {field: value} (config.json's) from stdin, writes one JSON object to stdout: {"tensors": {name:
shape}, "linear": [module, ...], "tied": bool, "config": {...}}, or {"refused": why}. Nothing is loaded, no
model's own code runs, and what libraries print goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from engine.child_process import end_with, limit_address_space

# A layer's modules take some 50 KB of objects; a config that claims a million of them shall not fill the machine.
_ADDRESS_SPACE_BYTES = 16 << 30
# What the shape of a model does not depend on, or what would make transformers fetch or quantise something.
_LEFT_OUT = ("auto_map", "quantization_config", "attn_implementation", "_attn_implementation", "transformers_version")
_SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "num_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "n_shared_experts",
    "kv_lora_rank",
    "q_lora_rank",
    "qk_rope_head_dim",
    "qk_nope_head_dim",
    "v_head_dim",
    "sliding_window",
    "num_kv_heads",
)
# How Falcon and GPT-BigCode say how many heads keys and values have.
_FLAGS = ("multi_query", "new_decoder_architecture")


def describe(values: dict[str, Any]) -> dict[str, Any]:
    """The shapes of the model `values` describe. Raises what transformers raises for a config it cannot build."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText

    model_type = values.get("model_type")
    if model_type not in CONFIG_MAPPING:
        return {"refused": "unknown"}
    config = CONFIG_MAPPING[model_type].from_dict(
        {name: value for name, value in values.items() if name not in _LEFT_OUT}
    )
    text = config.get_text_config()
    padding, vocabulary = getattr(text, "pad_token_id", None), getattr(text, "vocab_size", None)
    if padding is not None and vocabulary is not None and padding >= vocabulary:
        text.pad_token_id = None  # the class's default, of a model with more words
    kind = AutoModelForCausalLM
    if type(config) not in AutoModelForCausalLM._model_mapping:
        if type(config) not in AutoModelForImageTextToText._model_mapping:
            return {"refused": "not causal"}
        kind = AutoModelForImageTextToText
    with torch.device("meta"):
        model = kind.from_config(config, trust_remote_code=False)
    model.tie_weights()
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    embedding = model.get_input_embeddings()
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    ]
    tensors = {name: list(each.shape) for name, each in model.named_parameters()}
    tied = head is not None and getattr(head, "weight", None) is getattr(embedding, "weight", 0)
    return {"tensors": tensors, "linear": linear, "tied": tied, "config": _sizes(text, embedding)}


def _sizes(config: Any, embedding: Any) -> dict[str, Any]:
    """The numbers ModelConfig reads, under their usual names; a list (one per layer) becomes its largest."""
    told: dict[str, Any] = {}
    for name in _SIZES:
        value = _size(config, name)
        if type(value) is int and value >= 1:
            told[name] = value
    told |= {name: value for name in _FLAGS if isinstance(value := getattr(config, name, None), bool)}
    kinds = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None)
    if isinstance(kinds, list) and len(kinds) == told.get("num_hidden_layers"):
        told["layer_types"] = [str(kind) for kind in kinds]
    for name in ("hidden_act", "hidden_activation", "activation_function", "activation"):
        if isinstance(value := getattr(config, name, None), str):
            told["hidden_act"] = value
            break
    weight = getattr(embedding, "weight", None)
    if weight is not None:
        told.setdefault("vocab_size", weight.shape[0])
        told.setdefault("hidden_size", weight.shape[1])
    told.setdefault("num_attention_heads", 1)  # a model without attention
    return told


def _size(config: Any, name: str) -> Any:
    try:
        value = getattr(config, name, None)
    except (RuntimeError, AttributeError):  # configs whose layers differ refuse to give one number for all
        value = [getattr(layer, name, None) for layer in config.per_layer_config]
    if isinstance(value, list | tuple) and value and all(type(each) is int for each in value):
        return max(value)
    return value


def main() -> None:
    end_with(os.getppid())
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    limit_address_space(_ADDRESS_SPACE_BYTES)
    try:
        result = describe(json.load(sys.stdin))
    except Exception as error:  # whatever transformers makes of nonsense: told, not traced
        text = " ".join(str(error).split()) or type(error).__name__
        result = {"refused": "fault", "fault": text[:300]}
    json.dump(result, answer)
    answer.close()


if __name__ == "__main__":
    main()
