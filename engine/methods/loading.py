"""Loading a base model and its tokenizer from a directory: safetensors only, no remote code, no look-ups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from profiles.problem import Problem, printable

LOADING_FAULTS = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError)

# Looked through at once: a whole embedding's copies would be more than a training step takes.
_CHECKED_NUMBERS = 1 << 22


def load_tokenizer(path: Path) -> Any:
    """The tokenizer in a model directory. Raises Problem when there is none or it cannot be read."""
    if not path.is_dir():
        raise Problem(str(path), "is not a folder", "Give the folder that holds the model.")
    if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise Problem(
            str(path), "has no tokenizer", "Copy tokenizer.json and tokenizer_config.json beside config.json."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises a bare Exception for a file that does not parse
        raise Problem(f"{path}, tokenizer", _short(error), "Copy the tokenizer's files again.") from error
    if tokenizer.pad_token_id is None:
        # Padding never carries loss and is masked from attention, so any token serves.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def load_base(
    path: Path,
    *,
    dtype: torch.dtype,
    device: str,
    attention: str = "sdpa",
    quantise: bool = False,
    double_quantisation: bool = True,
) -> transformers.PreTrainedModel:
    """The causal language model in `path`, frozen as loaded, on `device`.

    `dtype` is that of the weights, or, with `quantise` (bitsandbytes NF4, whose scales are quantised as well with
    `double_quantisation`), of what stays unquantised and of the products. Raises Problem when the folder does not
    hold such a model.
    """
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention, "device_map": {"": device}}
    if quantise:
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=double_quantisation,
            bnb_4bit_compute_dtype=dtype,
        )
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            path,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except torch.OutOfMemoryError:
        raise
    except LOADING_FAULTS as error:
        raise Problem(
            str(path), f"cannot be loaded: {_short(error)}", "Run `finetui inspect` on the folder."
        ) from error
    if quantise:
        _let_go_of_file(model)
    _refuse_incomplete(path, report)
    _refuse_non_finite(path, model)
    model.generation_config.pad_token_id = model.generation_config.pad_token_id or model.config.pad_token_id
    return model


def attach_adapter(model: transformers.PreTrainedModel, path: Path, *, trainable: bool = False) -> Any:
    """`model` with the PEFT adapter in `path` on top. Raises Problem when it does not fit the model."""
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, path, is_trainable=trainable, local_files_only=True)
    except LOADING_FAULTS as error:
        raise Problem(str(path), f"is not an adapter for this model: {_short(error)}", "Train it again.") from error


def _let_go_of_file(model: transformers.PreTrainedModel) -> None:
    """Copy what is not quantised: on a CPU it may be a view of the mapped file, which would stay with its matrices."""
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.device.type == "cpu":
            parameter.data = parameter.data.clone()


def _refuse_incomplete(path: Path, report: dict[str, Any]) -> None:
    # transformers fills absent tensors with random numbers and goes on; a person must not train on those.
    missing = sorted(report["missing_keys"])
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
