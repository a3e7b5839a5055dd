"""An optimizer step of a config's model on fake tensors, and the bytes it lives on.

Fake tensors have shapes and no memory. The model is transformers', and what learns, the loss, the recomputing and the
optimizer are the engine's own (TrainingStep), so what lives at a time is what would live in a real step; where that
needs a GPU or bitsandbytes, stand_ins and stand_in_kernels make and keep the same tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AttentionInterface

from engine.fit.fake_model import build, decoder_layers, keep_checkpoints_on_host, layer_kind, materialise
from engine.fit.live_bytes import LiveBytes
from engine.fit.stand_in_kernels import stand_in_kernels, varlen_attention
from engine.fit.stand_ins import make_stand_in_optimizer
from engine.fit.timeline import Timeline
from engine.fit.training_step import TrainingStep
from engine.train.document_attention import VARLEN_ATTENTION, forget_masks
from profiles.settings import Settings

# torch's CUDA allocator hands out multiples of this.
_CUDA_BLOCK_BYTES = 512


def replay_step(values: dict[str, Any], settings: Settings, *, every_layer: bool = False) -> dict[str, int]:
    """The highest bytes of each phase of an optimizer step of the model that config.json's `values` describe.

    One layer of each kind runs and stands for the others or, with `every_layer`, all do. Raises Problem for a config
    that makes no model.
    """
    model = build(values, settings)
    on_cuda = settings.device == "cuda"
    forget_masks()  # of another fake mode
    with stand_in_kernels(cuda=on_cuda), FakeTensorMode(allow_non_fake_inputs=True):
        materialise(model)
        attention = "eager" if settings.attention == "eager" else "sdpa"
        step = TrainingStep.of(model, settings, make_stand_in_optimizer, attention)
        if settings.attention == "varlen" and not step.forward.padded:
            AttentionInterface.register(VARLEN_ATTENTION, varlen_attention)
            step.forward.attention = VARLEN_ATTENTION
            step.forward.use_training_attention()
        return _Replay(step, model, LiveBytes(_CUDA_BLOCK_BYTES if on_cuda else 1), every_layer).phases()


class _Replay:
    """One step of `model`, in which only some layers run."""

    def __init__(self, step: TrainingStep, model: Any, live: LiveBytes, every_layer: bool):
        self.step, self.model, self.live = step, model, live
        self.layers = decoder_layers(step.forward.base)
        keep_checkpoints_on_host(self.layers)
        self.stands_for = list(range(len(self.layers))) if every_layer else self._representatives()
        self.ran = sorted(set(self.stands_for))
        self.timeline = Timeline()
        self.answers_tuples = False

    def phases(self) -> dict[str, int]:
        step, live = self.step, self.live
        for index, layer in enumerate(self.layers):
            if index in self.ran:
                self._watch(index, layer)
            else:
                layer.forward = self._pass_through
        found: dict[str, int] = {}
        with live:
            for tensor in (*self.model.parameters(), *self.model.buffers(), *step.batch_tensors()):
                live.count(tensor)
            self._fill_gradients()
            step.update(lambda _: None)  # the optimizer's states are made by its first step
            live.take_peak()
            for _ in range(step.settings.gradient_accumulation):
                had_gradients = self._gradient_bytes(missing=False)
                self.timeline = Timeline()
                step.micro_batch(self._mark)
                missing = self._gradient_bytes(missing=True)
                for name, size in self.timeline.whole_depth(self.stands_for, missing).items():
                    found[name] = max(found.get(name, 0), size)
                self._fill_gradients()
                live.take_peak()
                if had_gradients:
                    break  # every later micro-batch is as this one
            step.update(lambda name: found.update({name: live.take_peak()}))
        return found

    def _mark(self, name: str) -> None:
        self.timeline.add(name, self.live.now, self.live.take_peak())

    def _watch(self, index: int, layer: torch.nn.Module) -> None:
        """Mark where the layer's forward begins and ends, and where its backward begins."""

        def enter(_: Any, arguments: tuple[Any, ...]) -> None:
            if index == 0 and arguments[0].requires_grad:
                arguments[0].register_hook(lambda _: self._mark("embedding"))
            self._mark(f"enter {index}")

        def leave(_: Any, __: Any, output: Any) -> None:
            self.answers_tuples = isinstance(output, tuple)
            hidden = output[0] if isinstance(output, tuple) else output
            if hidden.requires_grad:
                hidden.register_hook(lambda _: self._mark(f"gradient {index}"))
            self._mark(f"leave {index}")

        layer.register_forward_pre_hook(enter)
        layer.register_forward_hook(leave)

    def _representatives(self) -> list[int]:
        """For each layer the one that runs for it.

        The first layer, the first one that learns and the last have neighbours like no other, and run themselves; so
        does the first that learns of each type, whose backward lets go of what the type shares (rotary tables, masks).
        """
        config = self.step.forward.base.config.get_text_config()
        types: Sequence[str] = getattr(config, "layer_types", None) or [""] * len(self.layers)
        learns = [any(each.requires_grad for each in layer.parameters()) for layer in self.layers]
        first = learns.index(True) if any(learns) else 0
        alone = {0, len(self.layers) - 1, *(types.index(each, first) for each in types[first:])}
        kinds: dict[tuple[Any, ...], int] = {}
        chosen = []
        for index, (layer, layer_type) in enumerate(zip(self.layers, types, strict=True)):
            kind = (index > first, *layer_kind(layer, layer_type))
            chosen.append(index if index in alone else kinds.setdefault(kind, index))
        return chosen

    def _gradient_bytes(self, *, missing: bool) -> int:
        parameters = self.step.parameters.values()
        block = self.live.block
        return sum(-(-each.nbytes // block) * block for each in parameters if (each.grad is None) is missing)

    def _fill_gradients(self) -> None:
        for parameter in self.step.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)

    def _pass_through(self, hidden: torch.Tensor, *_: Any, **__: Any) -> Any:
        """In the place of a layer's forward that does not run."""
        return (hidden, None) if self.answers_tuples else hidden
