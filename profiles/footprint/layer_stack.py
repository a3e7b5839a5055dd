"""The decoder's layers under given settings: what each costs, and where gradients begin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from profiles.footprint.decoder_layers import DecoderLayer
from profiles.footprint.lasting import adapted_shapes
from profiles.footprint.layer_costs import LayerCost, final_norm_cost, layer_cost
from profiles.footprint.layer_shapes import LayerTensors, describe_layer
from profiles.footprint.tape_ops import Precision
from profiles.geometry import Geometry
from profiles.settings import DTYPE_BYTES, Settings
from profiles.shapes.layer_kinds import SLIDING
from profiles.shapes.tensor_names import LAYER

_FP32 = 4


class LayerStack:
    """The decoder's layers under settings, whatever the rank, the optimizer and the layers that recompute.

    `tensors` and `elements` are by layer; `kinds` has for each the first layer with the same tensors.
    """

    def __init__(
        self,
        geometry: Geometry,
        settings: Settings,
        tensors: Sequence[LayerTensors],
        kinds: Sequence[int],
        elements: Sequence[int],
        capability: tuple[int, int] | None,
    ):
        self._geometry, self._settings = geometry, settings
        self._tensors, self._kinds, self._elements = tensors, kinds, elements
        self.precision = Precision(
            compute=DTYPE_BYTES[settings.compute_dtype],
            held=DTYPE_BYTES[settings.weight_dtype],
            autocast=settings.autocast,
            cuda=settings.device == "cuda",
            dropout=settings.dropout > 0 and settings.method in ("lora", "qlora"),
        )
        self.offloaded = settings.offload_checkpoints and settings.device == "cuda"
        self._expands = _expands(settings, capability)
        self._adapted = adapted_shapes(geometry, settings)
        self.first_learning = self._first_learning()
        accumulating = settings.gradient_accumulation > 1
        self.costs = self._costs(accumulating)
        self.last = self._described(geometry.layers - 1)
        self.norm = final_norm_cost(self.last, self.precision, accumulating=accumulating)
        self.gradients, self.gradients_by_rank = self._gradients()
        self.moments: dict[tuple[int, int, int], tuple[Any, ...]] = {}
        """For profiles.footprint.step: what it made of this stack, by rank, recompute and accumulation."""
        del self._geometry, self._adapted  # a cache that hangs on the geometry must not hold it

    def _first_learning(self) -> int:
        """The first layer in which something learns, which is the first that keeps anything."""
        geometry, settings = self._geometry, self._settings
        if settings.method == "full":
            return 0
        if settings.method == "partial":
            return max(0, geometry.layers - settings.trained_layers)
        return min((int(m[3]) for name in self._adapted if (m := LAYER.search(name + "."))), default=geometry.layers)

    def _described(self, layer: int) -> DecoderLayer:
        learns = self._settings.method in ("full", "partial") and layer >= self.first_learning
        return describe_layer(
            self._geometry,
            self._settings,
            self._tensors[layer],
            adapted=self._adapted,
            weights_learn=learns,
            pieces=self._settings.attention == "sdpa",
            expands=self._expands or self._masked_expands(layer),
        )

    def _masked_expands(self, layer: int) -> bool:
        """On a GPU no fused kernel groups heads under a mask, which is what a sliding window is without varlen."""
        sliding = self._geometry.config.layer_types[layer] == SLIDING
        return self.precision.cuda and self._settings.attention == "sdpa" and sliding

    def _costs(self, accumulating: bool) -> list[LayerCost]:
        costs: list[LayerCost] = []
        known: dict[tuple[int, bool, bool, bool], LayerCost] = {}
        full = self._settings.method == "full"
        for layer, kind in enumerate(self._kinds):
            passes = full or layer > self.first_learning
            learns = layer >= self.first_learning
            key = (kind, passes, learns, self._masked_expands(layer))
            if key not in known:
                known[key] = layer_cost(
                    self._described(layer),
                    self.precision,
                    input_learns=passes,
                    accumulating=accumulating,
                    offloaded=self.offloaded,
                )
            costs.append(known[key])
        return costs

    def _gradients(self) -> tuple[list[int], list[int]]:
        """Bytes of each layer's gradients of parameters: of the model's own, and of LoRA matrices per rank."""
        layers = range(self._geometry.layers)
        own, adapters = [0 for _ in layers], [0 for _ in layers]
        if self._settings.method in ("full", "partial"):
            for layer in layers:
                own[layer] = self._elements[layer] * _FP32 if layer >= self.first_learning else 0
        for name, (inputs, outputs) in self._adapted.items():
            if match := LAYER.search(name + "."):
                adapters[int(match[3])] += (inputs + outputs) * _FP32
        return own, adapters


def _expands(settings: Settings, capability: tuple[int, int] | None) -> bool:
    """Whether keys and values are repeated for every query head: on a GPU where flash attention does not run."""
    if settings.device != "cuda" or settings.attention != "sdpa":
        return False
    return (
        settings.compute_dtype != "bf16"
        if capability is None
        else (settings.compute_dtype == "fp32" or capability < (8, 0))
    )
