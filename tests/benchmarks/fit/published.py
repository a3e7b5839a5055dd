"""Other trainers' published measurements (published.csv) against the parts that profiles.memory counts with.

Comparable are rows that give torch's allocated bytes, the exact length of the rows and a stack that is known:
fitcheck-llm's single steps on a T4 (a plain transformers and peft loop in fp16 without autocast, every layer
recomputing). What that stack does and ours does not is written here: peft's own LoRA forward, which casts each
adapter's input to float32; whole logits, which its loop holds through the backward; memory-efficient attention, which
wants keys and values repeated for every query head; and under 4 bits the upcasting of prepare_model_for_kbit_training,
which makes embedding, norms and residual stream float32. Layers, ops and weights are profiles' own.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from fit.table import Row

from engine.fit.models import find_model
from profiles.footprint.layer_costs import final_norm_cost, layer_cost
from profiles.footprint.layer_shapes import describe_layer, tensors_by_layer
from profiles.footprint.tape import (
    FIXED,
    KEPT,
    KEPT_RANK,
    RANK,
    TOKEN,
    TOKEN_LENGTH,
    TOKEN_RANK,
    Parameter,
    Size,
    Value,
)
from profiles.footprint.tape_ops import Linear, Ops, Precision
from profiles.geometry import Geometry
from profiles.settings import Settings

_GIB = 1 << 30
_FP32, _FP16 = 4, 2
# One scale in float32 for 64 weights of 4 bits each: fitcheck's rows do not quantise the scales.
_NF4_BYTES = 0.5 + _FP32 / 64
_ADAM_BYTES = 2 * _FP32

_REASONS = {
    "litgpt-rt": "LitGPT of October 2023, whose own model code is not modelled",
    "litgpt": "batches are padded to their longest row, whose length is not told",
    "tune": "rows of an Alpaca-like set padded to the longest of a batch, whose length is not told; compiled",
}


class PeftOps(Ops):
    """The ops of a transformers model with peft's own adapters, without autocast, on a GPU before Ampere."""

    def linear(self, x: Value, layer: Linear) -> Value:
        result = self._base(x, layer)
        if layer.quantised:
            result = self.cast(result, x.item)
        if layer.learns != "adapter":
            return result
        if layer.quantised:
            result = self.same(result)
        narrow = self._product(self.cast(x, _FP32), Parameter(layer.inputs, _FP32, True, RANK), 1, TOKEN_RANK)
        added = self._product(narrow, Parameter(layer.outputs, _FP32, True, RANK), layer.outputs, TOKEN)
        added = self.scaled(added)
        if layer.quantised:
            added = self.cast(added, result.item)
        return self.cast(self.plus(result, added), x.item)

    def fused_attention(
        self, query: Value, key: Value, value: Value, *, heads: int, pieces: bool, expands: bool
    ) -> Value:
        """Memory-efficient attention: gradients in the inputs' dtype, no copy in float32."""
        tape, width, item = self.tape, query.width, query.item
        if key.width != width:
            key, value = self._expanded(key, width), self._expanded(value, width)
        output, sums = tape.new(width, item), tape.new(heads, _FP32)
        return tape.op(
            output,
            [query, key, value],
            [query, key, value, output, sums],
            lambda gradient: [tape.new(width, item) for _ in range(3)],
        )

    def eager_attention(self, query: Value, key: Value, value: Value, *, heads: int) -> Value:
        """transformers' eager attention; CUDA's softmax goes from fp16 to float32 and back without a copy between, and
        its backward begins with gradient times output (aten/native/cuda/SoftMax.cu)."""
        tape, width, item = self.tape, query.width, query.item
        if key.width != width:
            key, value = self._expanded(key, width), self._expanded(value, width)

        def square(size: int) -> Value:
            return tape.new(heads, size, TOKEN_LENGTH)

        def softmax_backward(gradient: Value) -> list[Value | None]:
            product = square(_FP32)
            made = square(item)
            del product
            return [made]

        scores = tape.op(square(item), [query, key], [query, key])
        scores = tape.op(square(item), [scores])  # scaled
        scores = tape.op(square(item), [scores], [], lambda gradient: [gradient])  # masked
        shares = square(_FP32)
        shares = tape.op(shares, [scores], [shares], softmax_backward)
        del scores
        shares = self.cast(shares, item)
        output = tape.op(tape.new(width, item), [shares, value], [shares, value])
        del shares
        return self.same(output)


def compare(folder: Path) -> tuple[list[Row], list[tuple[str, str]]]:
    """(rows that can be compared, (name, reason) of those that cannot). Configs are written into `folder`."""
    rows, others = [], []
    with (Path(__file__).parent / "published.csv").open(newline="") as file:
        for entry in csv.DictReader(file):
            kind = entry["id"].rpartition("-")[0]
            if kind in _REASONS:
                others.append((f"{entry['id']} {entry['model']}", _REASONS[kind]))
                continue
            settings = _settings(entry)
            name = f"{entry['model'].rpartition('/')[2]}: {entry['method']} {entry['attention']}, "
            name += f"{settings.micro_batch} x {settings.sequence_length}, rank {settings.rank} ({entry['id']})"
            measured = round(float(entry["allocated_gib"]) * _GIB)
            rows.append(Row(name, measured, peak_bytes(_geometry(folder, entry), settings), None))
    return rows, others


def peak_bytes(geometry: Geometry, settings: Settings) -> int:
    """The most tensor bytes in a step of fitcheck's loop: at the loss, or in the last or the first layer's backward."""
    quantised = settings.method == "qlora"
    held = _FP32 if quantised else _FP16
    tokens, rank, hidden = settings.tokens, settings.rank, geometry.hidden_size
    learning = _learning(geometry, settings)
    precision = Precision(compute=_FP16, held=held, autocast=False, cuda=True, dropout=False)
    layer = describe_layer(
        geometry,
        settings,
        tensors_by_layer(geometry)[-1],
        adapted=learning,
        weights_learn=False,
        pieces=False,
        expands=True,
    )
    layer = replace(layer, table_item=held)
    cost = layer_cost(layer, precision, input_learns=True, accumulating=False, ops=PeftOps)
    norm = final_norm_cost(layer, precision, accumulating=False, ops=PeftOps)

    def size(polynomial: Size) -> int:
        per_token = polynomial[TOKEN] + polynomial[TOKEN_RANK] * rank
        per_token += polynomial[TOKEN_LENGTH] * settings.sequence_length
        fixed = polynomial[FIXED] + polynomial[KEPT] + (polynomial[RANK] + polynomial[KEPT_RANK]) * rank
        return fixed + tokens * per_token

    elements = rank * sum(inputs + outputs for inputs, outputs in learning.values())
    constant = _weights(geometry, quantised=quantised, held=held) + elements * (_FP32 + _ADAM_BYTES)
    inputs = tokens * hidden * held
    logits = tokens * geometry.vocab_size * held
    # At the loss's backward: the log-softmax, its gradient, and that of the logits, all float32.
    at_loss = 3 * tokens * geometry.vocab_size * _FP32 + size(norm.kept) + inputs
    backward = max(map(size, cost.recomputed))
    return max(
        constant + geometry.layers * inputs + logits + at_loss,
        constant + (geometry.layers - 1) * inputs + logits + backward,
        constant + logits + elements * _FP32 + backward,
    )


def _weights(geometry: Geometry, *, quantised: bool, held: int) -> int:
    matrices = sum(inputs * outputs for inputs, outputs in geometry.quantisable_shapes.values()) if quantised else 0
    return round(matrices * _NF4_BYTES) + (geometry.parameters - matrices) * held


def _learning(geometry: Geometry, settings: Settings) -> dict[str, tuple[int, int]]:
    """The adapted modules' (inputs, outputs)."""
    return {
        name: shape for name, shape in geometry.linear_shapes.items() if name.rpartition(".")[2] in settings.targets
    }


def _settings(entry: dict[str, str]) -> Settings:
    return Settings(
        method="qlora" if entry["method"] == "qlora" else "lora",
        device="cuda",
        compute_dtype="fp16",
        attention="eager" if entry["attention"] == "eager" else "sdpa",
        sequence_length=int(entry["sequence_length"]),
        micro_batch=int(entry["micro_batch"]),
        rank=int(entry["rank"]),
        targets=tuple(f"{name}_proj" for name in entry["targets"].split()),
        double_quantisation=False,
        gradient_checkpointing=1,
    )


def _geometry(folder: Path, entry: dict[str, str]) -> Geometry:
    path = folder / f"published {entry['id']}"
    path.mkdir(exist_ok=True)
    sizes: Iterable[tuple[str, str]] = (
        ("num_hidden_layers", "layers"),
        ("hidden_size", "hidden"),
        ("num_attention_heads", "heads"),
        ("num_key_value_heads", "kv_heads"),
        ("intermediate_size", "intermediate"),
        ("vocab_size", "vocab"),
    )
    config = {name: int(entry[column]) for name, column in sizes}
    told = {"model_type": entry["model_type"], "tie_word_embeddings": entry["tied"] == "True", "dtype": "float16"}
    (path / "config.json").write_text(json.dumps({**config, **told}))
    return find_model(path)
