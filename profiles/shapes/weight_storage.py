"""How a config.json says the weights are stored: in which dtype, quantised by what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"}
UNTOLD_METHOD = "unknown"
_BITS = {"fp8": 8, "mxfp4": 4, "awq": 4}


def stored_dtype(values: Mapping[str, Any]) -> str:
    """In safetensors' words; F32, transformers' default, where it is not told."""
    told = values.get("dtype") or values.get("torch_dtype")
    return _DTYPES.get(told, "F32") if isinstance(told, str) else "F32"


def stored_quantised(values: Mapping[str, Any]) -> tuple[str | None, int | None]:
    """(method, bits) of weights that are stored quantised; None for each that is not so, or not told."""
    told = values.get("quantization_config")
    if told is None:
        return None, None
    if not isinstance(told, dict):
        return UNTOLD_METHOD, None
    method, bits = told.get("quant_method"), told.get("bits", told.get("w_bit"))
    if told.get("load_in_4bit") is True or told.get("load_in_8bit") is True:
        method, bits = method or "bitsandbytes", 4 if told.get("load_in_4bit") is True else 8
    name = method if isinstance(method, str) and method else UNTOLD_METHOD
    if bits is None:
        bits = _BITS.get(name)
    return name, bits if type(bits) is int and 1 <= bits <= 8 else None
