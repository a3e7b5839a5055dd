"""Loading a base model and its tokenizer from a directory: safetensors only, no remote code, no look-ups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from engine.data.tokens.loading import vet_tokenizer
from engine.data.tokens.reference import describe, read_tokenizer
from engine.data.tokens.templates import choose_template
from engine.methods.heads import LANGUAGE, Head
from profiles.problem import Problem, printable
from profiles.shapes.loadable import require_safe_folder

LOADING_FAULTS = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError)

AUTO_CLASSES = {"language": AutoModelForCausalLM, "classes": AutoModelForSequenceClassification, "none": AutoModel}
"""transformers' class for a decoder with each kind of head."""
# What transformers' decoders call the head that tells classes apart.
CLASS_HEAD = "score"

# Looked through at once: a whole embedding's copies would be more than a training step takes.
_CHECKED_NUMBERS = 1 << 22


def load_tokenizer(path: Path, chat_template: str = "model") -> Any:
    """The tokenizer in a model directory, with the chat template that `chat_template` names (data.chat_template), which
    is then also what it saves. Raises Problem when there is none or it cannot be read."""
    vet_tokenizer(path)
    tokenizer = read_tokenizer(path)
    if chat_template != "model":
        tokenizer.chat_template = choose_template(chat_template, describe(tokenizer), str(path)).template
    return tokenizer


def load_base(
    path: Path,
    *,
    dtype: torch.dtype,
    device: str,
    attention: str = "sdpa",
    quantise: bool = False,
    double_quantisation: bool = True,
    head: Head = LANGUAGE,
) -> transformers.PreTrainedModel:
    """The model in `path`, frozen as loaded, on `device`, with `head` on its decoder.

    `dtype` is that of the weights, or, with `quantise` (bitsandbytes NF4, whose scales are quantised as well with
    `double_quantisation`), of what stays unquantised and of the products. A head for classes that the folder has not
    begins with random weights. Raises Problem when the folder does not hold such a model.
    """
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention, "device_map": {"": device}}
    options |= head.configuration()
    if quantise:
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=double_quantisation,
            bnb_4bit_compute_dtype=dtype,
            **({"llm_int8_skip_modules": [CLASS_HEAD]} if head.kind == "classes" else {}),
        )
    require_safe_folder(path)
    try:
        model, report = AUTO_CLASSES[head.kind].from_pretrained(
            path,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # whatever libraries raise of a folder that came from anywhere: validations, assertions
        if head.kind == "classes" and "Unrecognized configuration class" in str(error):
            raise Problem(
                str(path),
                "is of a family that transformers has no classification head for",
                'Choose another model, or teach this one to answer with the class: objective.kind "next_token".',
            ) from error
        raise Problem(
            str(path), f"cannot be loaded: {_short(error)}", "Run `finetui inspect` on the folder."
        ) from error
    if quantise:
        _let_go_of_file(model)
    _refuse_incomplete(path, report, new=CLASS_HEAD if head.kind == "classes" else None)
    _refuse_non_finite(path, model)
    if head.kind == "classes" and not hasattr(model, CLASS_HEAD):
        raise Problem(
            str(path), f"{type(model).__name__} has its own kind of classification head", "Choose a decoder model."
        )
    if head.kind == "language":
        model.generation_config.pad_token_id = model.generation_config.pad_token_id or model.config.pad_token_id
    return model


def attach_adapter(model: transformers.PreTrainedModel, path: Path, *, trainable: bool = False) -> Any:
    """`model` with the PEFT adapter in `path` on top. Raises Problem when it does not fit the model."""
    try:
        return PeftModel.from_pretrained(model, path, is_trainable=trainable, local_files_only=True)
    except LOADING_FAULTS as error:
        raise Problem(str(path), f"is not an adapter for this model: {_short(error)}", "Train it again.") from error


def _let_go_of_file(model: transformers.PreTrainedModel) -> None:
    """Copy what is not quantised: on a CPU it may be a view of the mapped file, which would stay with its matrices."""
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.device.type == "cpu":
            parameter.data = parameter.data.clone()


def _refuse_incomplete(path: Path, report: dict[str, Any], new: str | None) -> None:
    # transformers fills absent tensors with random numbers and goes on; a person must not train on those, but for the
    # head that the run adds.
    missing = sorted(name for name in report["missing_keys"] if new is None or not name.startswith(f"{new}."))
    mismatched = sorted(str(entry[0]) for entry in report["mismatched_keys"])
    if missing or mismatched:
        name = (missing or mismatched)[0]
        found = "is absent from the weights" if missing else "has another shape than config.json says"
        count = len(missing) + len(mismatched)
        others = f" (and {count - 1} more)" if count > 1 else ""
        raise Problem(f"{path}, tensor {printable(name)}", f"{found}{others}", "Copy the model's files again.")


def _refuse_non_finite(path: Path, model: transformers.PreTrainedModel) -> None:
    for name, tensor in model.named_parameters():
        if tensor.is_floating_point() and not all(
            part.isfinite().all() for part in tensor.detach().flatten().split(_CHECKED_NUMBERS)
        ):
            raise Problem(
                f"{path}, tensor {printable(name)}",
                "holds values that are not finite numbers, so every loss would be one",
                "Copy the model's files again.",
            )


def _short(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return printable(text.splitlines()[0], 200)
