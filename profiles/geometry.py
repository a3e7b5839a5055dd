"""The shape of a model, read from config.json and the safetensors headers; never a weight, never torch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from profiles.model_config import ModelConfig, read_config
from profiles.model_folder import read_tokenizer, read_weights, require_model_folder
from profiles.problem import Problem, printable
from profiles.safetensors_header import COPY_AGAIN, Tensor

__all__ = ["Geometry", "ModelReport", "Tensor", "inspect_model", "read_geometry"]

_TRAINABLE_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})
# Tables that old checkpoints carry along and that transformers computes instead.
_BUFFER = re.compile(r"(rotary_emb\.inv_freq|\.masked_bias|\.attn\.bias)$")
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output)\.weight$")
_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|word_embeddings|embed_in|wpe|embed_positions)\.weight$")
_LAYER = re.compile(r"(^|\.)(layers|h|blocks)\.(\d+)\.")


@dataclass(frozen=True)
class Geometry:
    """A decoder's shape. `tensors` are what the files store; `parameters` counts tied ones once."""

    path: Path
    config: ModelConfig
    tied: bool
    tensors: Mapping[str, Tensor] = field(repr=False)

    @property
    def architecture(self) -> str:
        return self.config.architecture

    @property
    def model_type(self) -> str:
        return self.config.model_type

    @property
    def layers(self) -> int:
        return self.config.layers

    @property
    def hidden_size(self) -> int:
        return self.config.hidden_size

    @property
    def intermediate_size(self) -> int:
        return self.config.intermediate_size

    @property
    def heads(self) -> int:
        return self.config.heads

    @property
    def kv_heads(self) -> int:
        return self.config.kv_heads

    @property
    def head_dim(self) -> int:
        return self.config.head_dim

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def context_length(self) -> int | None:
        """Longest text the model was made for, in tokens; None when its config does not say."""
        return self.config.context_length

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for tensor in self.tensors.values())

    @property
    def weight_bytes(self) -> int:
        """Size of the weights as stored, in bytes."""
        return sum(tensor.bytes for tensor in self.tensors.values())

    @property
    def dtype(self) -> str:
        """The dtype most parameters are stored in, in safetensors' words."""
        counted: Counter[str] = Counter()
        for tensor in self.tensors.values():
            counted[tensor.dtype] += tensor.elements
        return counted.most_common(1)[0][0]

    @cached_property
    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of each linear layer LoRA can attach to (not the output head), by module name.

        The experts of a mixture are left out: transformers holds them as one tensor, not as linear layers.
        """
        return {
            name.removesuffix(".weight"): (tensor.shape[1], tensor.shape[0])
            for name, tensor in self.tensors.items()
            if name.endswith(".weight") and len(tensor.shape) == 2 and ".experts." not in name
            if not _HEAD.search(name) and not _EMBEDDING.search(name)
        }

    @property
    def head_and_embedding_parameters(self) -> int:
        """Elements of the embedding and, when it has weights of its own, the output head."""
        return sum(
            each.elements for name, each in self.tensors.items() if _HEAD.search(name) or _EMBEDDING.search(name)
        )

    def as_dict(self) -> dict[str, Any]:
        """What a person wants to know of a model, for `--json`."""
        return {
            "path": str(self.path),
            "architecture": self.architecture,
            "model_type": self.model_type,
            "parameters": self.parameters,
            "weight_bytes": self.weight_bytes,
            "dtype": self.dtype,
            "layers": self.layers,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "heads": self.heads,
            "kv_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocab_size,
            "tied": self.tied,
            "context_length": self.context_length,
        }


@dataclass(frozen=True)
class ModelReport:
    """What a model folder is and all that is wrong with it; it can be trained when `problems` is empty."""

    path: Path
    geometry: Geometry | None
    tokenizer: str | None
    has_chat_template: bool
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": "model",
            "path": str(self.path),
            "geometry": self.geometry and self.geometry.as_dict(),
            "tokenizer": self.tokenizer,
            "chat_template": self.has_chat_template,
            "problems": [problem.as_dict() for problem in self.problems],
            "notes": list(self.notes),
        }


def read_geometry(path: Path) -> Geometry:
    """The shape of the model in folder `path`. Raises Problem for the first fault that forbids training."""
    geometry, problems = _read(path)
    if problems:
        raise problems[0]
    assert geometry is not None
    return geometry


def inspect_model(path: Path) -> ModelReport:
    """All that can be said of the folder `path` without loading it; faults are listed, never raised."""
    tokenizer, has_template = None, False
    try:
        geometry, problems = _read(path)
        tokenizer, has_template, tokenizer_problems = read_tokenizer(path)
        problems += tokenizer_problems
    except Problem as problem:
        return ModelReport(path, None, None, False, (problem,), ())
    notes = []
    if tokenizer and not has_template:
        notes.append("There is no chat template: data of prompts and completions or plain text works, chats do not.")
    if geometry and not geometry.config.has_formula:
        notes.append(f"Memory estimates were not checked for models of type {printable(geometry.model_type)}.")
    return ModelReport(path, geometry, tokenizer, has_template, tuple(problems), tuple(notes))


def _read(path: Path) -> tuple[Geometry | None, list[Problem]]:
    """The geometry, where it can be read, and all faults. Raises Problem when it is no model folder."""
    require_model_folder(path)
    try:
        config, problems = read_config(path)
    except Problem as problem:
        return None, [problem]
    try:
        stored = read_weights(path)
    except Problem as problem:
        return None, [*problems, problem]
    tensors = {name: tensor for name, tensor in stored.items() if not _BUFFER.search(name)}
    if not problems:
        problems += _check_tensors(path, config, tensors)
    tied = config.tied if config.tied is not None else not any(_HEAD.search(name) for name in tensors)
    if tied:  # a stored copy of the head is dropped in favour of the embedding
        tensors = {name: tensor for name, tensor in tensors.items() if not _HEAD.search(name)}
    if not tensors:
        return None, [*problems, Problem(str(path), "has weight files without any tensor", COPY_AGAIN)]
    return Geometry(path, config, tied, tensors), problems


def _check_tensors(path: Path, config: ModelConfig, tensors: Mapping[str, Tensor]) -> list[Problem]:
    """Faults of the weights as a whole: quantised, too few layers, shapes that config.json does not say."""
    for name, tensor in tensors.items():
        if tensor.dtype not in _TRAINABLE_DTYPES:
            return [
                Problem(
                    f"{path}, tensor {printable(name)}",
                    f"is stored as {tensor.dtype}: this model is already quantised and cannot be trained",
                    "Choose the unquantised model; qlora quantises it while loading.",
                )
            ]
    wrong = []
    for name, tensor in tensors.items():
        expected = _expected_shape(config, name)
        if expected and tensor.shape != expected:
            wrong.append(f"{printable(name)} is {list(tensor.shape)}, not {list(expected)}")
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return [Problem(f"{path}, tensors", f"do not fit config.json: {'; '.join(wrong[:3])}{more}", COPY_AGAIN)]
    present = {int(match[3]) for name in tensors if (match := _LAYER.search(name))}
    absent = [layer for layer in range(config.layers) if layer not in present] if config.layers < 10_000 else [0]
    if absent:
        return [
            Problem(
                str(path),
                f"has weights for {len(present)} of the {config.layers:,} layers in config.json",
                COPY_AGAIN,
            )
        ]
    if not any(_EMBEDDING.search(name) for name in tensors):
        return [Problem(str(path), "has no token embedding among its weights", COPY_AGAIN)]
    if config.tied is False and not any(_HEAD.search(name) for name in tensors):
        return [Problem(f"{path}, tensor lm_head.weight", "is absent from the weights", COPY_AGAIN)]
    return []


def _expected_shape(config: ModelConfig, name: str) -> tuple[int, ...] | None:
    """The shape `name` must have by config.json; None for names the formulas do not know."""
    if not config.has_formula:
        return None
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    if _HEAD.search(name) or _EMBEDDING.search(name):
        return (config.vocab_size, hidden)
    matrices = {
        "q_proj": (queries, hidden),
        "k_proj": (keys, hidden),
        "v_proj": (keys, hidden),
        "o_proj": (hidden, queries),
        "gate_proj": (inner, hidden),
        "up_proj": (inner, hidden),
        "down_proj": (hidden, inner),
    }
    module, _, kind = name.rpartition(".")
    return matrices.get(module.rpartition(".")[2]) if kind == "weight" else None
