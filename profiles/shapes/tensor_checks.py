"""Whether stored tensors are the ones a config.json speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from profiles.problem import Problem, printable
from profiles.shapes.model_config import ModelConfig
from profiles.shapes.safetensors_header import COPY_AGAIN, Tensor
from profiles.shapes.tensor_names import EMBEDDING, HEAD, LAYER

_TRAINABLE_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})
_SHOWN = 3
# Some files name the decoder without the module it lies in.
_PREFIXES = ("model.", "transformer.", "gpt_neox.")


def check_tensors(
    path: Path, config: ModelConfig, tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]
) -> list[Problem]:
    """Faults of the weights as a whole: quantised, too few layers, shapes that config.json does not say.

    `expected` has the shapes by the config's formula; it is empty for a family without one.
    """
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
        shape = next((expected[each] for each in (name, *(p + name for p in _PREFIXES)) if each in expected), None)
        if shape and tensor.shape != shape:
            wrong.append(f"{printable(name)} is {list(tensor.shape)}, not {list(shape)}")
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        return [Problem(f"{path}, tensors", f"do not fit config.json: {'; '.join(wrong[:_SHOWN])}{more}", COPY_AGAIN)]
    present = {int(match[3]) for name in tensors if (match := LAYER.search(name))}
    if absent := [layer for layer in range(config.layers) if layer not in present]:
        return [
            Problem(
                str(path),
                f"has weights for {config.layers - len(absent)} of the {config.layers:,} layers in config.json",
                COPY_AGAIN,
            )
        ]
    if not any(EMBEDDING.search(name) for name in tensors):
        return [Problem(str(path), "has no token embedding among its weights", COPY_AGAIN)]
    if config.tied is False and not any(HEAD.search(name) for name in tensors):
        return [Problem(f"{path}, tensor lm_head.weight", "is absent from the weights", COPY_AGAIN)]
    return []
