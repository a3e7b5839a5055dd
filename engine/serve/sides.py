"""The two models of a run that answer: base and tuned, which for an adapter are one model in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from engine.data.contents import PlainText
from engine.data.preview import preview
from engine.data.source import Source
from engine.export.output import output_of
from engine.methods.loading import attach_adapter, load_base, load_tokenizer
from engine.run.directory import RunDirectory
from engine.serve.decoding import CachedReader
from engine.serve.prompts import stop_tokens
from engine.train.device import DTYPES, DeviceChoice, choose_device
from profiles.problem import Problem

Progress = Callable[[str], None]

SHAPE_BYTES = 1 << 16


@dataclass(frozen=True)
class Side:
    """One of the two models. Call `select` before anything is computed through `reader`."""

    name: str
    tokenizer: Any
    generation_config: Any
    reader: CachedReader
    select: Callable[[], None]
    stops: frozenset[int]
    context_tokens: int | None
    learned_pairs: bool
    """What is learned from is questions and answers rather than plain text; decides where there is no template."""


@dataclass(frozen=True)
class LoadedRun:
    """Both sides in memory. `dtype` is that of the products, such as "bfloat16"."""

    sides: dict[str, Side]
    device: DeviceChoice
    dtype: str


class _AdapterSwitch:
    """Turns all of a model's adapter layers on or off at once, and does nothing when they already are.

    peft's own disable_adapter() also inspects every parameter, which takes longer than a token does.
    """

    def __init__(self, model: Any):
        self._layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
        self._on = True

    def set(self, on: bool) -> None:
        if on != self._on:
            for layer in self._layers:
                layer.enable_adapters(on)
            self._on = on


def load_sides(run: RunDirectory, progress: Progress) -> LoadedRun:
    """Load what is needed to answer as the base and as the tuned model of `run`, each part told to
    `progress`.

    Weights are held in the precision the run computed in, or the device's own where it cannot do that one.
    Raises Problem when the run has no result, or one of the two cannot be loaded.
    """
    spec, output = run.spec(), output_of(run)
    device = choose_device()
    dtype = device.dtype
    if spec.model.dtype != "auto" and not (spec.model.dtype == "fp16" and device.kind == "cpu"):
        dtype = DTYPES[spec.model.dtype]

    def load(path: Path) -> Any:
        model = load_base(
            path,
            dtype=dtype,
            device=device.kind,
            quantise=spec.method.kind == "qlora",
            double_quantisation=spec.method.double_quantisation,
        )
        return model.eval()

    progress("reading the base model")
    base = load(spec.model.path)
    base_tokenizer, tuned_tokenizer = load_tokenizer(spec.model.path), load_tokenizer(output.path)
    if output.kind == "adapter":
        progress("reading the adapter")
        tuned = attach_adapter(base, output.path).eval()
        switch = _AdapterSwitch(tuned)
        selects = {"base": lambda: switch.set(False), "tuned": lambda: switch.set(True)}
        models = {"base": tuned, "tuned": tuned}
    else:
        progress("reading the tuned model")
        selects = {"base": lambda: None, "tuned": lambda: None}
        models = {"base": base, "tuned": load(output.path)}
    tokenizers = {"base": base_tokenizer, "tuned": tuned_tokenizer}
    # The tuned model may have learned a template that the base's folder lacks; asked the same way, they
    # compare.
    if base_tokenizer.chat_template is None:
        base_tokenizer.chat_template = tuned_tokenizer.chat_template
    learned_pairs = _learns_pairs(spec.data.train[0].source())
    sides = {
        name: Side(
            name,
            tokenizers[name],
            models[name].generation_config,
            CachedReader(models[name]),
            selects[name],
            stop_tokens(tokenizers[name], models[name].generation_config),
            _context_tokens(base.config, tokenizers[name]),
            learned_pairs,
        )
        for name in ("base", "tuned")
    }
    return LoadedRun(sides, device, str(dtype).removeprefix("torch."))


def _learns_pairs(data: Source) -> bool:
    try:
        samples = preview(data, limit_bytes=SHAPE_BYTES).samples
    except Problem:
        return False  # moved or changed since the run; plain continuation takes any text
    return bool(samples) and not isinstance(samples[0].content, PlainText)


def _context_tokens(config: Any, tokenizer: Any) -> int | None:
    limit = getattr(config.get_text_config(), "max_position_embeddings", None) or tokenizer.model_max_length
    # Tokenizers that know no limit say 1e30.
    return limit if limit < torch.iinfo(torch.int32).max else None
