"""Turning a loaded base model into one whose chosen parameters learn: full, partial, LoRA, QLoRA."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from engine.methods.fused_lora import fuse_lora
from engine.methods.loading import CLASS_HEAD
from engine.spec import MethodSection
from profiles.problem import Problem, printable

# What the parts of a mixture are called in peft's table of fused layers.
_EXPERT_NAMES = frozenset({"gate", "w1", "w2", "w3", "gate_proj", "up_proj", "down_proj"})


def make_trainable(model: PreTrainedModel, method: MethodSection) -> Any:
    """`model` with what `method` trains requiring gradients; a PeftModel for lora and qlora.

    Unlike peft's prepare_model_for_kbit_training nothing is upcast: embeddings, norms and the residual stream keep
    their precision, and only what learns is float32. A head for classes is new and always learns. Raises Problem when
    no layer has a target's name, or there are fewer layers than should learn.
    """
    if method.kind == "full":
        return model.requires_grad_(True)
    model.requires_grad_(False)
    if method.kind == "partial":
        for module in _last_layers(model, method.trained_layers):
            module.float().requires_grad_(True)
        if (head := getattr(model, CLASS_HEAD, None)) is not None:
            head.float().requires_grad_(True)
        return model
    from peft import LoraConfig, get_peft_model

    _keep_4bit_layout(model)
    config = LoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        target_modules=_all_linear(model) if method.targets == "all-linear" else list(method.targets),
        task_type=_task_type(model),
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
    if (head := getattr(model, CLASS_HEAD, None)) is not None:
        head.float()  # peft's copy that learns, and the one under it, which is not read
    fuse_lora(adapted)
    return adapted


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


def _task_type(model: PreTrainedModel) -> str:
    """What peft calls the use of `model`; for a classifier it saves the head with the adapter."""
    if hasattr(model, CLASS_HEAD):
        return "SEQ_CLS"
    return "CAUSAL_LM" if model.get_output_embeddings() is not None else "FEATURE_EXTRACTION"


def _last_layers(model: PreTrainedModel, count: int) -> list[torch.nn.Module]:
    """The last `count` decoder layers and the final norm. Raises Problem when the model has fewer layers."""
    total = model.config.get_text_config().num_hidden_layers
    parts = dict(model.get_decoder().named_children())
    stacks = [part for part in parts.values() if isinstance(part, torch.nn.ModuleList) and len(part) == total]
    if not stacks:
        raise Problem(
            "method.kind",
            f"partial needs to know the layers of a model, and those of {type(model).__name__} are not where expected",
            'Use "lora" or "full".',
        )
    if count > total:
        raise Problem(
            "method.trained_layers",
            f"is {count}, but the model has {total} decoder layers",
            f'Set it to {total} or less, or train every weight with method.kind = "full".',
        )
    # Families call the final norm norm, ln_f or final_layer_norm; one with "emb" in its name follows the embedding, and
    # if that learned, every layer would keep its activations.
    norms = [part for name, part in parts.items() if "norm" in type(part).__name__.lower() and "emb" not in name]
    return [*stacks[0][total - count :], *norms]


def _all_linear(model: PreTrainedModel) -> list[str]:
    """Full names of the text decoder's linear layers, without the output head.

    Where a model has experts, their names, shared experts' and dense layers' among them, are left out: peft takes them,
    in whatever form they come, for the stacked tensors of all experts, and builds those anew in every forward.
    """
    decoder = model.get_decoder()
    has_experts = any(parameter.ndim == 3 and ".experts." in name for name, parameter in decoder.named_parameters())
    linear = {id(module) for module in decoder.modules() if isinstance(module, torch.nn.Linear | Conv1D)}
    linear.discard(id(model.get_output_embeddings()))
    return [
        name
        for name, module in model.named_modules()
        if id(module) in linear and not (has_experts and name.rpartition(".")[2] in _EXPERT_NAMES)
    ]


def _keep_4bit_layout(model: PreTrainedModel) -> None:
    # On a CPU with bf16, bitsandbytes' 4-bit layers repack their weights for good in the first evaluation, into a
    # layout that has no backward.
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _linear_layers(model: torch.nn.Module) -> Iterator[str]:
    return (name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear))
