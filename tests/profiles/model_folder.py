"""Model folders written by hand: config.json, safetensors files with zeros, a tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}


def llama_tensors(config: dict[str, Any] = LLAMA) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor that such a model has."""
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    keys = hidden * config["num_key_value_heads"] // config["num_attention_heads"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        shapes |= {
            f"{prefix}input_layernorm.weight": (hidden,),
            f"{prefix}post_attention_layernorm.weight": (hidden,),
            f"{prefix}self_attn.q_proj.weight": (hidden, hidden),
            f"{prefix}self_attn.k_proj.weight": (keys, hidden),
            f"{prefix}self_attn.v_proj.weight": (keys, hidden),
            f"{prefix}self_attn.o_proj.weight": (hidden, hidden),
            f"{prefix}mlp.gate_proj.weight": (inner, hidden),
            f"{prefix}mlp.up_proj.weight": (inner, hidden),
            f"{prefix}mlp.down_proj.weight": (hidden, inner),
        }
    return shapes


def write_safetensors(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str = "float32") -> None:
    save_file({name: np.zeros(shape, dtype) for name, shape in shapes.items()}, path)


def write_raw(path: Path, header: bytes, data: bytes = b"", claimed: int | None = None) -> None:
    """A safetensors file whose header is `header`, said to be `claimed` bytes long."""
    path.write_bytes((len(header) if claimed is None else claimed).to_bytes(8, "little") + header + data)


def make_model(folder: Path, config: dict[str, Any] | None = None, dtype: str = "float32") -> Path:
    """A whole Llama-type model folder. `config` changes fields, and the weights accordingly."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {**LLAMA, **(config or {})}
    write_safetensors(folder / "model.safetensors", llama_tensors(values), dtype)
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder
