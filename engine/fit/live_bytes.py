"""How many bytes of tensors live at once, counted at the storages: real tensors and fake ones alike."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all living storages that operations made while it was entered; `peak` is the most there were.

    A storage counts once, however many tensors look at it, and in multiples of `block` bytes (512 is how torch's CUDA
    allocator rounds). What was there before has to be handed to `count`. Tensors on the meta device weigh nothing.
    """

    def __init__(self, block: int = 1) -> None:
        super().__init__()
        self.block = block
        self.now = self.peak = 0
        self._living: dict[int, tuple[weakref.ref[torch.UntypedStorage], int]] = {}

    def count(self, tensor: torch.Tensor) -> None:
        """Count the storage of `tensor` for as long as it lives."""
        if tensor.device.type == "meta":
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._living:
            return
        size = -(-storage.nbytes() // self.block) * self.block
        self._living[key] = (weakref.ref(storage, lambda _: self._free(key)), size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def take_peak(self) -> int:
        """The peak since the last call; the next one starts from what lives now."""
        peak, self.peak = self.peak, self.now
        return peak

    def _free(self, key: int) -> None:
        self.now -= self._living.pop(key)[1]

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in (result,) if isinstance(result, torch.Tensor) else tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.count(leaf)
        return result
