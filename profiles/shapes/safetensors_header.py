"""The header of a safetensors file: which tensors it holds, without reading any of their numbers.

Format: 8 bytes little-endian header length, that many bytes of JSON
{name: {dtype, shape, data_offsets}}, then the tensors' bytes without gaps. https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from profiles.bounded_files import file_size, looks_wrong, open_regular, parse_json, read_bytes
from profiles.problem import Problem, printable

# The largest real headers have some 20,000 tensors in one file (mixtures of experts), 2 to 3 MB. The format
# allows 100 MB, which as Python objects could fill this process's memory.
HEADER_LIMIT_BYTES = 8 << 20
_DIMENSIONS_LIMIT = 8
_DIMENSION_LIMIT = 1 << 48
# What is found under this name now and then. No length of a header begins with these bytes and is within its limit.
_SIGNATURES = (
    (b"PK\x03\x04", "is a zip archive (or a pickle of torch's)"),
    (b"\x1f\x8b", "is packed with gzip"),
    (b"\x28\xb5\x2f\xfd", "is packed with zstd"),
    (b"GGUF", "is a GGUF file, which cannot be fine-tuned,"),
    (b"\x80\x02", "is a Python pickle, which can run code when opened,"),
)
_TAR = (257, b"ustar")

DTYPE_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}

COPY_AGAIN = "Copy the model's files again; compare their sizes with the source's."


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as stored: `dtype` in safetensors' words (F32, BF16, ...)."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return (self.elements * DTYPE_BITS[self.dtype] + 7) // 8


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file, by name. Raises Problem unless the file is whole and consistent."""
    size = file_size(path)
    if wrong := looks_wrong(path, size):
        raise Problem(str(path), wrong, COPY_AGAIN)
    if other := _other_format(path):
        raise Problem(str(path), f"{other} under the name of a safetensors file", COPY_AGAIN)
    if size < 8:
        raise Problem(str(path), f"is cut off: {size} bytes are no safetensors file", COPY_AGAIN)
    try:
        with open_regular(path) as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            if header_bytes > size - 8:
                raise Problem(
                    str(path),
                    f"is not safetensors or is cut off: its header claims {header_bytes:,} bytes "
                    f"and the file has {size:,}",
                    COPY_AGAIN,
                )
            if header_bytes > HEADER_LIMIT_BYTES:
                raise Problem(
                    str(path),
                    f"has a header of {header_bytes:,} bytes; no model needs over {HEADER_LIMIT_BYTES:,}",
                    COPY_AGAIN,
                )
            text = file.read(header_bytes)
    except OSError as error:
        raise Problem(str(path), f"cannot be read: {error.strerror}", "Check the disk and permissions.") from None
    return _check_header(path, parse_json(text, path, "its header", COPY_AGAIN), size - 8 - header_bytes)


def _other_format(path: Path) -> str | None:
    head = read_bytes(path, _TAR[0] + len(_TAR[1]))
    if head[_TAR[0] :] == _TAR[1]:
        return "is a tar archive"
    if int.from_bytes(head[:8], "little") <= HEADER_LIMIT_BYTES:
        return None
    return next((words for signature, words in _SIGNATURES if head.startswith(signature)), None)


def _check_header(path: Path, header: dict[str, Any], data_bytes: int) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    places: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            tensors[name], begin, end = _check_tensor(entry)
        except ValueError as error:
            raise Problem(f"{path}, tensor {printable(name)}", str(error), COPY_AGAIN) from None
        places.append((begin, end, name))
    reached = 0
    for begin, end, name in sorted(places):
        if begin != reached:
            raise Problem(
                f"{path}, tensor {printable(name)}",
                f"starts at byte {begin:,} where the one before ends at {reached:,}",
                COPY_AGAIN,
            )
        reached = end
    if reached > data_bytes:
        raise Problem(
            str(path),
            f"is cut off: its tensors need {reached:,} bytes and {data_bytes:,} are there",
            "Copy the file again; the copy did not finish.",
        )
    if reached < data_bytes:
        raise Problem(
            str(path),
            f"has {data_bytes - reached:,} bytes after its last tensor that nothing describes",
            COPY_AGAIN,
        )
    return tensors


def _check_tensor(entry: Any) -> tuple[Tensor, int, int]:
    """The tensor and where its bytes begin and end. Raises ValueError saying what is wrong with the entry."""
    if not isinstance(entry, dict):
        raise ValueError("its entry in the header is no object")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise ValueError(f"has the unknown dtype {printable(repr(dtype))}")
    if not _are_sizes(shape) or len(shape) > _DIMENSIONS_LIMIT:
        raise ValueError(f"has the impossible shape {printable(shape)}")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"has the impossible data_offsets {printable(offsets)}")
    tensor, (begin, end) = Tensor(tuple(shape), dtype), offsets
    if end - begin != tensor.bytes:
        raise ValueError(f"is {tensor.bytes:,} bytes by its shape and {end - begin:,} by its offsets")
    return tensor, begin, end


def _are_sizes(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < _DIMENSION_LIMIT for value in values)
