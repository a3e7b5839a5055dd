"""One optimizer step of the engine's own, in pieces whose memory can be told apart, for replay and benchmark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from engine.methods.recomputing import checkpoint_layers
from engine.methods.trainable import trainable_parameters
from engine.spec import MethodSection, OptimizerSection
from engine.train.batches import MicroBatch
from engine.train.device import AUTOCAST
from engine.train.document_attention import document_starts
from engine.train.forward import Forward
from engine.train.step import forward_backward, update
from profiles.settings import Settings

TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# A row at its most expensive: one document that fills it, so that a sliding window cuts, and one more, so that
# attention's outputs have to be joined.
SHORT_DOCUMENT_TOKENS = 2

_FIRST_TOKEN, _TOKENS = 3, 97


def method_section(settings: Settings) -> MethodSection:
    return MethodSection(
        kind=settings.method,
        rank=settings.rank,
        dropout=settings.dropout,
        targets=settings.targets,
        trained_layers=settings.trained_layers,
        double_quantisation=settings.double_quantisation,
    )


def optimizer_section(settings: Settings) -> OptimizerSection:
    return OptimizerSection(kind=settings.optimizer)


@dataclass
class TrainingStep:
    """A model that learns, on a device, with the batch that it learns from. `optimizer` may be any stand-in."""

    forward: Forward
    parameters: dict[str, torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    batch: MicroBatch
    settings: Settings

    @classmethod
    def of(
        cls,
        model: Any,
        settings: Settings,
        make_optimizer: Callable[[dict[str, torch.nn.Parameter], OptimizerSection], torch.optim.Optimizer],
        attention: str,
    ) -> TrainingStep:
        """The step of `model`, which engine.methods.make_trainable has been over, as engine.train.setup builds it."""
        compute = TORCH_DTYPES[settings.compute_dtype]
        forward = Forward(model, attention=attention, compute=compute, loss_chunk=settings.loss_chunk)
        offload = settings.offload_checkpoints and settings.device != "cpu"
        checkpoint_layers(model, settings.gradient_checkpointing, offload=offload)
        parameters = trainable_parameters(model)
        optimizer = make_optimizer(parameters, optimizer_section(settings))
        model.train()
        return cls(forward, parameters, optimizer, longest_batch(settings, padded=forward.padded), settings)

    def micro_batch(self, mark: Callable[[str], None]) -> None:
        """Forward and backward of one micro-batch; `mark` is told "loss" and "backward" when each is over."""

        def backward(loss: torch.Tensor) -> None:
            mark("loss")
            loss.backward()

        compute = TORCH_DTYPES[self.settings.compute_dtype]
        autocast = partial(
            torch.autocast,
            self.batch.input_ids.device.type,
            dtype=compute,
            enabled=self.settings.autocast,
            cache_enabled=AUTOCAST.cache_enabled,
        )
        scale = 1 / (self.batch.targets * self.settings.gradient_accumulation)
        loss_of = partial(self.forward.loss, self.batch, scale)
        forward_backward(loss_of, autocast=autocast, backward=backward)
        mark("backward")

    def update(self, mark: Callable[[str], None]) -> torch.Tensor:
        """Clip the gradients, step, drop them; `mark` is told "optimizer" when it is over. Returns the norm."""
        norm = update(self.parameters.values(), self.optimizer, limit=1.0)
        mark("optimizer")
        return norm


def longest_batch(settings: Settings, *, padded: bool) -> MicroBatch:
    """Full rows of the worst kind on the current default device: every token but a document's first is a target."""
    rows, length = settings.micro_batch, settings.sequence_length
    lengths = (length,) * rows
    if not padded and length > SHORT_DOCUMENT_TOKENS:
        lengths = (length - SHORT_DOCUMENT_TOKENS, SHORT_DOCUMENT_TOKENS) * rows
    shape = (rows, length) if padded else (1, rows * length)
    positions = torch.cat([torch.arange(each) for each in lengths]).reshape(shape)
    sources = torch.cat([torch.arange(each - 1) + start for each, start in zip(lengths, _starts(lengths), strict=True)])
    # Ordinary tokens of any vocabulary: a padding token's embedding is zero, and gradients with it.
    ids = (_FIRST_TOKEN + torch.arange(rows * length) % _TOKENS).reshape(shape)
    return MicroBatch(
        input_ids=ids,
        position_ids=positions,
        attention_mask=torch.ones_like(ids) if padded else None,
        document_lengths=lengths,
        document_starts=document_starts(lengths),
        sources=sources,
        labels=_FIRST_TOKEN + sources % _TOKENS,
        example_sources=(0,) * len(lengths),
        example_targets=tuple(each - 1 for each in lengths),
    )


def _starts(lengths: tuple[int, ...]) -> list[int]:
    return [sum(lengths[:index]) for index in range(len(lengths))]
