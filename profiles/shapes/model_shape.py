"""Geometry: the shape of a decoder, and what follows from it without a weight being read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from profiles.shapes.layer_kinds import SLIDING
from profiles.shapes.model_config import ModelConfig
from profiles.shapes.safetensors_header import Tensor
from profiles.shapes.tensor_names import EMBEDDING, EXPERT, EXPERT_PARTS, HEAD, is_linear

Source = Literal["files", "config", "catalogue"]

# Their linear layers are transformers' Conv1D, whose weights are (inputs, outputs).
_TRANSPOSED_TYPES = frozenset({"gpt2", "openai-gpt"})


@dataclass(frozen=True)
class Geometry:
    """A decoder's shape. `tensors` are named as their source names them; `parameters` counts tied ones once.

    From files they are named as stored there. From a config they are named as transformers 5 names its modules, which
    differs for a mixture of experts: a layer's experts are one tensor there (`mlp.experts.gate_up_proj`) where most
    files have one per expert. Counts and `linear_shapes` are the same either way.
    """

    path: Path
    """The model's folder; of a catalogue's model its name."""
    config: ModelConfig
    tied: bool
    tensors: Mapping[str, Tensor] = field(repr=False)
    """Of the text model. A quantised tensor is here with its true shape and the nearest dtype ("F4" for 4 bits)."""
    source: Source = "files"
    vision_parameters: int = 0
    """Elements of the towers for images or sound, which are not in `tensors`."""
    stored_bytes: int | None = None
    """What the files take where it is not what `tensors` add up to: quantised ones with their constants, or towers."""
    linear_names: frozenset[str] | None = field(default=None, repr=False)
    """Modules that transformers itself told to be linear; None: told from the tensors' names."""

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

    @cached_property
    def parameters(self) -> int:
        """Elements of the text model."""
        return sum(tensor.elements for tensor in self.tensors.values())

    @cached_property
    def expert_parameters(self) -> int:
        """Elements of all routed experts."""
        return sum(tensor.elements for name, tensor in self.tensors.items() if EXPERT.search(name))

    @cached_property
    def active_parameters(self) -> int:
        """Elements that one token passes: of the routed experts only those it is sent to."""
        if not self.config.experts:
            return self.parameters
        idle = self.config.experts - self.config.experts_per_token
        return self.parameters - self.expert_parameters * idle // self.config.experts

    @cached_property
    def weight_bytes(self) -> int:
        """Size of the weights as stored, in bytes."""
        if self.stored_bytes is not None:
            return self.stored_bytes
        return sum(tensor.bytes for tensor in self.tensors.values())

    @cached_property
    def dtype(self) -> str:
        """The dtype most parameters are stored in, in safetensors' words."""
        counted: Counter[str] = Counter()
        for tensor in self.tensors.values():
            counted[tensor.dtype] += tensor.elements
        return counted.most_common(1)[0][0]

    @cached_property
    def quantisable_shapes(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of each linear layer but the output head, by module name: what bitsandbytes quantises.

        The routed experts of a mixture and their router are left out: transformers holds them as parameters of their
        own, not as linear layers.
        """
        shapes = {
            name.removesuffix(".weight"): (tensor.shape[1], tensor.shape[0])
            for name, tensor in self.tensors.items()
            if self._is_linear(name, tensor)
        }
        if self.model_type in _TRANSPOSED_TYPES:
            return {name: (outputs, inputs) for name, (inputs, outputs) in shapes.items()}
        return shapes

    @cached_property
    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of each linear layer that "all-linear" attaches LoRA to, by module name.

        Of a mixture of experts these are fewer than `quantisable_shapes`: peft takes layers called like an expert's
        parts (a shared expert's, a dense MLP's) for the stacked tensors of all experts, so the engine leaves them out.
        """
        if not self.config.experts:
            return self.quantisable_shapes
        return {
            name: shape
            for name, shape in self.quantisable_shapes.items()
            if name.rpartition(".")[2] not in EXPERT_PARTS
        }

    def _is_linear(self, name: str, tensor: Tensor) -> bool:
        if self.linear_names is None:
            return is_linear(name, tensor.shape)
        return name.removesuffix(".weight") in self.linear_names and len(tensor.shape) == 2

    @cached_property
    def head_and_embedding_parameters(self) -> int:
        """Elements of the embedding and, when it has weights of its own, the output head."""
        return sum(each.elements for name, each in self.tensors.items() if HEAD.search(name) or EMBEDDING.search(name))

    def as_dict(self) -> dict[str, Any]:
        """What a person wants to know of a model, for `--json`."""
        config = self.config
        return {
            "path": str(self.path),
            "source": self.source,
            "architecture": self.architecture,
            "model_type": self.model_type,
            "parameters": self.parameters,
            "active_parameters": self.active_parameters,
            "weight_bytes": self.weight_bytes,
            "dtype": self.dtype,
            "layers": self.layers,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "heads": self.heads,
            "kv_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "attention": config.attention_kind,
            "sliding_window": config.sliding_window,
            "sliding_layers": sum(kind == SLIDING for kind in config.layer_types),
            "vocab_size": self.vocab_size,
            "tied": self.tied,
            "context_length": self.context_length,
            "experts": config.experts,
            "experts_per_token": config.experts_per_token,
            "quantisation": config.quantisation,
            "quantisation_bits": config.quantisation_bits,
            "vision": config.vision,
            "vision_parameters": self.vision_parameters,
        }
