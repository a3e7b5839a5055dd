"""Whether tensors hold numbers only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch


class NotFiniteError(Exception):
    """A tensor that was to be saved holds a value that is not a finite number."""

    def __init__(self, tensor: str):
        super().__init__(f"{tensor} holds a value that is not a finite number")
        self.tensor = tensor
        """The parameter's name; for a tensor of the optimizer's "parameter|key"."""


def require_finite(tensors: Mapping[str, torch.Tensor]) -> None:
    """Look through all floating `tensors`. Raises NotFiniteError naming the first that is not finite throughout.

    Each is reduced where it lies, to its least and greatest value, without a copy (isfinite makes one, and takes
    25 times as long on a CPU); the host waits for each device once.
    """
    extremes: defaultdict[torch.device, list[torch.Tensor]] = defaultdict(list)
    names: defaultdict[torch.device, list[str]] = defaultdict(list)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel():
            least, greatest = torch.aminmax(tensor.detach())  # either is NaN where any value is
            extremes[tensor.device].append(torch.stack((least, greatest)).double())
            names[tensor.device].append(name)
    for device, found in extremes.items():
        finite = torch.stack(found).isfinite().all(1).tolist()
        for name, is_finite in zip(names[device], finite, strict=True):
            if not is_finite:
                raise NotFiniteError(name)
