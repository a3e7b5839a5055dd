"""A model of a config's shape without a byte of weights: built on the meta device, then given fake tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import CONFIG_MAPPING, PreTrainedModel

from engine.fit.stand_in_kernels import host_checkpoint, use_cuda_dropout
from engine.fit.stand_ins import quantise
from engine.fit.training_step import TORCH_DTYPES, head_for, method_section
from engine.methods.loading import AUTO_CLASSES
from engine.methods.recomputing import offloading_checkpoint
from engine.methods.trainable import make_trainable
from profiles.problem import Problem, printable
from profiles.settings import Settings

# What would make transformers fetch, quantise or choose something.
_LEFT_OUT = ("auto_map", "quantization_config", "attn_implementation", "_attn_implementation", "transformers_version")


def build(values: Mapping[str, Any], settings: Settings) -> Any:
    """The model that config.json's `values` describe, on the meta device, with what `settings` train learning.

    Raises Problem when transformers does not know the model or cannot build it.
    """
    kind = values.get("model_type")
    if kind not in CONFIG_MAPPING:
        raise Problem("config.json, field model_type", f"is {printable(kind)}, which transformers does not know", "")
    try:
        config = (
            CONFIG_MAPPING[kind]
            .from_dict({name: value for name, value in values.items() if name not in _LEFT_OUT})
            .get_text_config()
        )
        if (config.pad_token_id or 0) >= config.vocab_size:
            config.pad_token_id = None  # the class's default, of a model with more words
        head = head_for(settings)
        for name, value in head.configuration().items():
            setattr(config, name, value)
        with torch.device("meta"):
            model = AUTO_CLASSES[head.kind].from_config(
                config, dtype=TORCH_DTYPES[settings.weight_dtype], attn_implementation="sdpa", trust_remote_code=False
            )
    except Exception as error:  # whatever transformers makes of nonsense
        text = str(error).strip() or type(error).__name__
        raise Problem(
            "config.json", f"describes no model that can be built: {printable(text.splitlines()[0], 200)}", ""
        ) from error
    if settings.method == "qlora":
        # On CUDA bitsandbytes unpacks a matrix for all but small batches.
        quantise(
            model,
            TORCH_DTYPES[settings.compute_dtype],
            double=settings.double_quantisation,
            unpacks_in_forward=settings.device == "cuda",
        )
    model = make_trainable(model, method_section(settings))
    if settings.device == "cuda":
        use_cuda_dropout(model)
    return model


def decoder_layers(base: PreTrainedModel) -> list[torch.nn.Module]:
    """The decoder's layers in order. Raises Problem when they are not in one list."""
    total = base.config.get_text_config().num_hidden_layers
    for part in base.get_decoder().children():
        if isinstance(part, torch.nn.ModuleList) and len(part) == total:
            return list(part)
    raise Problem("config.json", f"makes a {type(base).__name__}, whose layers are not in one list", "")


def materialise(model: torch.nn.Module) -> None:
    """Replace the meta tensors by fake ones on the current default device; call it under FakeTensorMode.

    By direct replacement, since Module.to does not work on fake parameters. Ties stay.
    """
    parameters: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in parameters:
                    tensor = torch.empty(parameter.shape, dtype=parameter.dtype)
                    parameters[id(parameter)] = torch.nn.Parameter(tensor, requires_grad=parameter.requires_grad)
                module._parameters[name] = parameters[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.zeros(buffer.shape, dtype=buffer.dtype)
        for name, value in vars(module).items():
            if isinstance(value, torch.Tensor) and value.device.type == "meta":
                setattr(module, name, torch.zeros(value.shape, dtype=value.dtype))


def keep_checkpoints_on_host(layers: list[torch.nn.Module]) -> None:
    """Where the engine moves a layer's input to RAM, have the replay move it out of what is counted."""
    for layer in layers:
        if getattr(layer, "_gradient_checkpointing_func", None) is offloading_checkpoint:
            layer._gradient_checkpointing_func = host_checkpoint  # type: ignore[assignment]


def layer_kind(layer: torch.nn.Module, layer_type: str) -> tuple[Any, ...]:
    """What two layers have to share to keep and free the same bytes."""
    shapes = tuple((name, tuple(each.shape), each.dtype, each.requires_grad) for name, each in layer.named_parameters())
    recomputes = getattr(layer, "gradient_checkpointing", False)
    return type(layer).__name__, layer_type, recomputes, shapes
