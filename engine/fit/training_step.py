"""One optimizer step of the engine's own, in pieces whose memory can be told apart, for replay and benchmark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from engine.data.examples import Example, Examples
from engine.methods.heads import LANGUAGE, NO_HEAD, Head
from engine.methods.recomputing import checkpoint_layers
from engine.methods.trainable import trainable_parameters
from engine.objectives.base import Objective
from engine.objectives.choosing import make_objective
from engine.objectives.references import References
from engine.objectives.sequences import SequenceObjective
from engine.spec import MethodSection, ObjectiveSection, OptimizerSection
from engine.train.batches import MicroBatch
from engine.train.device import AUTOCAST
from engine.train.document_attention import document_starts
from engine.train.forward import Forward
from engine.train.step import forward_backward, update
from profiles.settings import SEQUENCES, Settings

TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# A row at its most expensive: one document that fills it, so that a sliding window cuts, and one more, so that
# attention's outputs have to be joined.
SHORT_DOCUMENT_TOKENS = 2

_FIRST_TOKEN, _TOKENS = 3, 97
_CLASSES = 3


def method_section(settings: Settings) -> MethodSection:
    return MethodSection(
        kind=settings.method,
        rank=settings.rank,
        dropout=settings.dropout,
        targets=settings.targets,
        trained_layers=settings.trained_layers,
        double_quantisation=settings.double_quantisation,
    )


def head_for(settings: Settings) -> Head:
    """What stands on the decoder, with a few classes where texts are told apart."""
    if settings.objective == "classification":
        return Head("classes", tuple(map(str, range(_CLASSES))))
    return LANGUAGE if settings.writes else NO_HEAD


def optimizer_section(settings: Settings) -> OptimizerSection:
    return OptimizerSection(kind=settings.optimizer)


@dataclass
class TrainingStep:
    """A model that learns, on a device, with the batch that it learns from. `optimizer` may be any stand-in."""

    forward: Forward
    objective: Objective[Any]
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
        objective, batch = _objective_and_batch(settings, forward)
        return cls(forward, objective, parameters, optimizer, batch, settings)

    def batch_tensors(self) -> Iterator[torch.Tensor]:
        """What the batch is made of."""
        return _tensors(self.batch)

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
        loss_of = partial(self.objective.loss, self.batch, scale=scale)
        forward_backward(loss_of, autocast=autocast, backward=backward)
        mark("backward")

    def update(self, mark: Callable[[str], None]) -> torch.Tensor:
        """Clip the gradients, step, drop them; `mark` is told "optimizer" when it is over. Returns the norm."""
        norm = update(self.parameters.values(), self.optimizer, limit=1.0)
        mark("optimizer")
        return norm


def _objective_and_batch(settings: Settings, forward: Forward) -> tuple[Objective[Any], MicroBatch]:
    examples = Examples.of(longest_examples(settings, padded=forward.padded))
    objective = make_objective(
        ObjectiveSection(kind=settings.objective),
        forward,
        examples,
        Examples.of([]),
        classes=_CLASSES,
        several=False,
        seed=0,
        step_units=len(examples),
    )
    if settings.objective == "next_token":
        return objective, longest_batch(settings, padded=forward.padded)
    if isinstance(objective, SequenceObjective):
        rows = np.arange(len(examples), dtype=np.int64)
        objective.references = References(rows, np.zeros((len(examples), 2), dtype=np.float32))
    return objective, objective.collate(list(examples))


def longest_examples(settings: Settings, *, padded: bool) -> list[Example]:
    """The examples of full rows of the worst kind: every token but a sequence's first is a target."""
    rows, length, sequences = settings.micro_batch, settings.sequence_length, SEQUENCES.get(settings.objective, 1)
    lengths = [(length,) * sequences] * rows
    # One pair alone has no other to be told from, and so no gradient.
    shared = sequences == 1 or settings.objective == "embedding"
    if shared and not padded and length > SHORT_DOCUMENT_TOKENS:
        lengths = [(length - SHORT_DOCUMENT_TOKENS,) * sequences, (SHORT_DOCUMENT_TOKENS,) * sequences] * rows
    answered = settings.writes  # texts and vectors of texts have no targets
    return [
        Example(
            # Different texts: candidates that are the same as the positive do not count.
            ((row + np.arange(sum(parts))) % _TOKENS + _FIRST_TOKEN).astype(np.int32),
            np.concatenate([np.arange(each) > 0 for each in parts]) & answered,
            row,
            parts=parts if sequences > 1 else (),
            labels=(row % 2,),
        )
        for row, parts in enumerate(lengths)
    ]


def _tensors(batch: MicroBatch) -> Iterator[torch.Tensor]:
    for value in vars(batch).values():
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, tuple):
            for each in value:
                if isinstance(each, MicroBatch):
                    yield from _tensors(each)


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
