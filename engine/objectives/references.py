"""What the untouched base gives to the answers, and the file of a run in which that is kept for a resume."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from engine.run.durable_files import sync
from engine.train.checkpoints.tensor_file import read_tensors, write_tensors
from profiles.disk_plan import REFERENCE_BYTES
from profiles.problem import Problem

REFERENCES_NAME = "references.safetensors"
DIGEST_BYTES = 32
# The header, and two digests.
_EXTRAS_BYTES = 1024


class References:
    """Log-probabilities of answers under the model as it was before training, two for every row."""

    def __init__(self, rows: NDArray[np.int64], values: NDArray[np.float32]):
        """rows: (n,), each once; values: (n, 2)."""
        self.rows, self.values = rows, values
        self._order = np.argsort(rows)
        self._sorted = rows[self._order]

    def of(self, rows: Sequence[int]) -> NDArray[np.float32]:
        """(rows, 2), for rows that are all known."""
        return self.values[self.positions(rows)]

    def positions(self, rows: Sequence[int]) -> NDArray[np.intp]:
        """Where `rows` stand among those known."""
        places = np.searchsorted(self._sorted, rows)
        assert np.array_equal(self._sorted[places], rows), "a row without a reference"
        return self._order[places]


def references_bytes(rows: int) -> int:
    """What the file of so many rows takes."""
    return rows * REFERENCE_BYTES + _EXTRAS_BYTES


def read_references(path: Path, rows: NDArray[np.int64], digest: bytes) -> NDArray[np.float32] | None:
    """The values kept for `rows`, whose tokens have `digest`; None where there are none, they are of other rows, or
    the file is damaged."""
    with suppress(SafetensorError, OSError):
        kept = {name: tensor.numpy() for name, tensor in read_tensors(path)} if path.is_file() else {}
        if kept.keys() == {"rows", "values", "tokens", "check"} and kept["check"].tobytes() == _check(kept):
            same = np.array_equal(kept["rows"], rows) and kept["tokens"].tobytes() == digest
            return kept["values"] if same else None
    return None


def write_references(path: Path, rows: NDArray[np.int64], values: NDArray[np.float32], digest: bytes) -> None:
    """Keep `values` of `rows`: the file is complete or not there. Raises Problem when it cannot be written."""
    arrays: dict[str, NDArray] = {"rows": rows, "values": values, "tokens": _numbers(digest)}
    arrays["check"] = _numbers(_check(arrays))
    staging = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        staging.unlink(missing_ok=True)
        write_tensors(staging, {name: torch.from_numpy(array) for name, array in arrays.items()})
        sync(staging)
        staging.rename(path)
        sync(path.parent)
    except OSError as error:
        with suppress(OSError):
            staging.unlink(missing_ok=True)
        raise Problem(
            str(path), f"cannot be written: {error.strerror}", "Free disk space there and resume the run."
        ) from error


def _numbers(digest: bytes) -> NDArray[np.uint8]:
    return np.array(list(digest), dtype=np.uint8)


def _check(arrays: Mapping[str, NDArray]) -> bytes:
    """A digest of what the file says, since safetensors has none."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for name in ("rows", "values", "tokens"):
        digest.update(arrays[name].tobytes())
    return digest.digest()
