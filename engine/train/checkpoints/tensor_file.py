"""safetensors files written and read one tensor at a time, so that a save needs no second copy of what it saves.

The library's own save_file copies every tensor of a GPU to the host before it writes the first; here the header is
written, then each tensor is fetched, written and let go. (The format: eight bytes with the header's length, the header
as JSON padded with spaces to a multiple of eight, the tensors' bytes without gaps.)
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open

from engine.run.checkpoints.manifest import Sealed
from engine.run.checkpoints.sealed_file import sealed_file

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
WRITABLE_DTYPES = frozenset(_DTYPES)
_ALIGNMENT = 8


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> Sealed:
    """Write `tensors`, whose dtypes are of WRITABLE_DTYPES, and what is said about them to a new file that safetensors
    loads, and bring it onto the disk. Raises OSError.

    Tensors that share memory are written each for itself; at most one of them is on the host besides what is there.
    """
    # As the library orders them, widest elements first, so that every tensor begins at a multiple of its elements.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Mapping[str, object]] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for name in order:
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.element_size()
        shape = list(tensor.shape)
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with sealed_file(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            # A tensor on the host is written from where it lies.
            host = tensors[name].detach().to("cpu").contiguous().reshape(-1)
            if host.numel():
                file.write(memoryview(host.view(torch.uint8).numpy()))
    return file.sealed


def read_tensors(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a file, one after another, on the host. Raises SafetensorError, OSError."""
    with safe_open(path, framework="pt", device="cpu") as file:
        for name in file.keys():  # noqa: SIM118 (no mapping: it has no iterator)
            yield name, file.get_tensor(name)


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a file, from its header alone. Raises SafetensorError, OSError."""
    with safe_open(path, framework="pt", device="cpu") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
