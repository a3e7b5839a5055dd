"""What a quantised checkpoint's tensors stand for: packed weights with their true shape, constants left out.

Formats as their writers lay them out in safetensors files:
- bitsandbytes 4 bits: `X.weight` U8 (elements / 2, 1) beside `X.weight.absmax`, `.quant_map`, `.quant_state...`;
  8 bits: `X.weight` I8 in its true shape beside `X.SCB`.
- GPTQ: `X.qweight` I32 (inputs x bits / 32, outputs); AWQ: (inputs, outputs x bits / 32); both beside `.qzeros`,
  `.scales`, GPTQ also `.g_idx`.
- fp8: `X.weight` F8_E4M3 in its true shape beside `X.weight_scale_inv` or `X.weight_scale`.
- compressed-tensors: `X.weight_packed` I32 (outputs, inputs x bits / 32) beside `.weight_scale`, `.weight_shape`.
- MXFP4 (gpt-oss): `X_blocks` U8 (..., groups, 16) of 32 numbers a group beside `X_scales`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from profiles.shapes.safetensors_header import DTYPE_BITS, Tensor

_CONSTANT = re.compile(
    r"(\.weight\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\..+)|\.SCB|\.weight_format|\.qzeros|\.scales"
    r"|\.g_idx|\.weight_scale(_inv)?|\.weight_scale_2|\.weight_zero_point|\.weight_shape|\.weight_g_idx|\.weight_global_scale"
    r"|\.(input|output|k|v)_scale|\.input_global_scale|_scales)$"
)
_USUAL_BITS = 4
_DTYPE_OF_BITS = {4: "F4", 6: "F6_E2M3", 8: "I8"}


def true_tensors(
    stored: Mapping[str, Tensor], bits: int | None, expected: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """The weights that the tensors `stored` hold, by their unquantised names.

    `bits` is a packed number's width where the config tells. `expected` gives shapes by the config's formula: 4-bit
    bitsandbytes weights are stored flat, and take theirs from there where the elements agree.
    """
    width = bits or _USUAL_BITS
    tensors: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if _CONSTANT.search(name):
            continue
        if name.endswith("_blocks") and len(tensor.shape) >= 2:
            *outer, groups, half = tensor.shape
            tensors[name.removesuffix("_blocks")] = Tensor((*outer, groups * half * 2), "F4")
        elif name.endswith(".qweight") and len(tensor.shape) == 2:
            module = name.removesuffix(".qweight")
            tensors[f"{module}.weight"] = Tensor(_unpacked(module, tensor, stored, width), _dtype(width))
        elif name.endswith(".weight_packed") and len(tensor.shape) == 2:
            outputs, packed = tensor.shape
            per_number = DTYPE_BITS[tensor.dtype] // width
            tensors[name.removesuffix("_packed")] = Tensor((outputs, packed * per_number), _dtype(width))
        elif tensor.dtype == "U8" and f"{name}.absmax" in stored:
            elements = 2 * tensor.elements
            shape = expected.get(name, ())
            tensors[name] = Tensor(shape if math.prod(shape) == elements and shape else (elements,), "F4")
        else:
            tensors[name] = tensor
    return tensors


def _unpacked(module: str, packed: Tensor, stored: Mapping[str, Tensor], bits: int) -> tuple[int, int]:
    """(outputs, inputs) of a GPTQ or AWQ weight: GPTQ packs along the inputs, AWQ along the outputs."""
    rows, columns = packed.shape
    scales = stored.get(f"{module}.scales")  # (groups, outputs)
    outputs = scales.shape[-1] if scales is not None and scales.shape else columns
    if outputs == columns:
        return columns, rows * 32 // bits
    return columns * 32 // bits, rows


def _dtype(bits: int) -> str:
    """The nearest of safetensors' dtypes: 2 and 3 bits count as 4."""
    return next((name for width, name in _DTYPE_OF_BITS.items() if bits <= width), "I8")
