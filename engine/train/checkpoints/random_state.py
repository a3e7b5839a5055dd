"""Where every generator of random numbers stands that a step may draw from: torch's on the host and on each GPU in use,
Python's own, and numpy's; and how all of them begin."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

_PYTHON_VERSION = 3  # of the form that random.getstate gives
_NUMPY_GENERATOR = "MT19937"  # of numpy's one global generator, which nobody can replace by another


@dataclass(frozen=True)
class RandomState:
    """The states at one moment; of format 1 of checkpoints only torch's. Taking them waits for no device."""

    torch_host: torch.Tensor
    torch_gpus: dict[int, torch.Tensor]
    python: tuple[Any, ...] | None
    numpy: tuple[Any, ...] | None

    @classmethod
    def now(cls) -> RandomState:
        gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        return cls(
            torch_host=torch.get_rng_state(),
            torch_gpus={index: torch.cuda.get_rng_state(index) for index in gpus},
            python=random.getstate(),
            numpy=cast(tuple[Any, ...], np.random.get_state()),
        )

    def put_back(self) -> None:
        """Have every generator go on from here; GPUs that are not there any more are left out."""
        torch.set_rng_state(self.torch_host)
        for index, state in self.torch_gpus.items():
            if index < torch.cuda.device_count():
                torch.cuda.set_rng_state(state, index)
        if self.python is not None:
            random.setstate(self.python)
        if self.numpy is not None:
            np.random.set_state(self.numpy)

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """As tensors, to be read by `from_tensors`; nothing of it is code."""
        tensors = {"cpu": self.torch_host} | {f"cuda:{index}": state for index, state in self.torch_gpus.items()}
        if self.python is not None:
            _, words, gauss = self.python
            tensors["python"] = torch.tensor(words, dtype=torch.int64)
            # What is left of a pair of normal numbers, if it is.
            tensors["python.gauss"] = torch.tensor([] if gauss is None else [gauss], dtype=torch.float64)
        if self.numpy is not None:
            _, words, position, has_gauss, gauss = self.numpy
            tensors["numpy"] = torch.tensor([*words.tolist(), position, has_gauss], dtype=torch.int64)
            tensors["numpy.gauss"] = torch.tensor([gauss], dtype=torch.float64)
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> RandomState:
        """Raises KeyError for tensors that are no such states."""
        gpus = {int(name.removeprefix("cuda:")): state for name, state in tensors.items() if name.startswith("cuda:")}
        if "cuda" in tensors:  # as checkpoints of format 1 name the first
            gpus[0] = tensors["cuda"]
        python = numpy = None
        if "python" in tensors:
            gauss = tensors["python.gauss"].tolist()
            python = (_PYTHON_VERSION, tuple(tensors["python"].tolist()), gauss[0] if gauss else None)
        if "numpy" in tensors:
            *words, position, has_gauss = tensors["numpy"].tolist()
            numpy = (_NUMPY_GENERATOR, words, position, has_gauss, tensors["numpy.gauss"].item())
        return cls(tensors["cpu"], gpus, python, numpy)


def seed_everything(seed: int) -> None:
    """Begin all random numbers of this process anew: torch's, and those that libraries may take from elsewhere."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
