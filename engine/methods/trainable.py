"""Turning a loaded base model into one whose chosen parameters learn: full, LoRA, QLoRA."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from engine.methods.fused_lora import fuse_lora
from engine.spec import MethodSection
from profiles.problem import Problem, printable


def make_trainable(model: PreTrainedModel, method: MethodSection) -> Any:
    """`model` with what `method` trains requiring gradients; a PeftModel for lora and qlora.

    Unlike peft's prepare_model_for_kbit_training nothing is upcast: embeddings, norms and the residual stream keep
    their precision, and only the adapters are float32. Raises Problem when no layer has a target's name.
    """
    if method.kind == "full":
        return model.requires_grad_(True)
    from peft import LoraConfig, get_peft_model

    model.requires_grad_(False)
    _keep_4bit_layout(model)
    config = LoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        target_modules="all-linear" if method.targets == "all-linear" else list(method.targets),
        task_type="CAUSAL_LM",
    )
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        names = sorted({name.rpartition(".")[2] for name in _linear_layers(model)})
        raise Problem(
            "method.targets",
            f"no layer is called {printable(method.targets)}",
            f"This model's linear layers are {', '.join(names)}.",
        ) from error
    fuse_lora(adapted)
    return adapted


def checkpoint_layers(model: torch.nn.Module, every: int) -> int:
    """Recompute every `every`-th decoder layer in the backward (0: none). Returns how many layers recompute."""
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    chosen = layers[::every] if every else []
    for layer in chosen:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
    return len(chosen)


def trainable_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that learn, by name; tied ones once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def count_parameters(model: torch.nn.Module) -> int:
    """All parameters of the base and its adapters; a 4-bit matrix counts its true elements, not its storage."""
    total = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        total += state.shape.numel() if state is not None else parameter.numel()
    return total


def _keep_4bit_layout(model: PreTrainedModel) -> None:
    # On a CPU with bf16, bitsandbytes' 4-bit layers repack their weights for good in the first evaluation, into a
    # layout that has no backward.
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _linear_layers(model: torch.nn.Module) -> Iterator[str]:
    return (name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear))
