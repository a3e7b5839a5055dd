"""The ops that transformers' decoder layers are made of, on a Tape: what each makes, keeps, and makes in its backward.

Named after the torch function or the modelling code they stand for. Orders and temporaries were read off torch's
derivatives.yaml and the dispatch log of real layers (torch 2.13, transformers 5.23, peft 0.21, bitsandbytes 0.50).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from profiles.footprint.tape import FIXED, RANK, TOKEN, TOKEN_LENGTH, TOKEN_RANK, Parameter, Tape, Value, needs_gradient

_FP32 = 4
_NF4_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer's sizes and what learns in it."""

    inputs: int
    outputs: int
    learns: Literal["nothing", "weight", "adapter"]
    bias: bool = False
    quantised: bool = False
    fused: bool = True
    """Whether engine.methods.fused_lora can adapt it (it cannot for GPT-2's Conv1D, which keeps peft's forward)."""


@dataclass(frozen=True, slots=True)
class Precision:
    """Bytes of a number: in products (`compute`), in frozen weights and the residual stream (`held`)."""

    compute: int
    held: int
    autocast: bool
    cuda: bool
    dropout: bool
    """Whether the inputs of adapters are dropped out."""


class Ops:
    """Ops under one precision, recorded on one tape."""

    def __init__(self, tape: Tape, precision: Precision):
        self.tape, self.precision = tape, precision

    # Products

    def linear(self, x: Value, layer: Linear) -> Value:
        if layer.learns != "adapter":
            return self._base(x, layer)
        # engine.methods.fused_lora: B's product is added into the base's output in place.
        tape = self.tape
        base = self._base(x, layer)
        narrow = self._product(self._dropped(x), Parameter(layer.inputs, _FP32, True, RANK), 1, TOKEN_RANK)
        if not layer.fused:
            added = self._product(narrow, Parameter(layer.outputs, _FP32, True, RANK), layer.outputs, TOKEN)
            added = self.scaled(added)
            return self.plus(base, added)
        narrow = tape.op(tape.new(1, narrow.item, TOKEN_RANK), [narrow])
        wide = self._cast_parameter(Parameter(layer.outputs, _FP32, True, RANK))
        into = (
            tape.new(base.width, base.item)
            if layer.quantised
            else Value(base.storage, base.width, base.item, base.term, None)
        )
        shape, wide_shape = (narrow.item, TOKEN_RANK), (layer.outputs, wide.item, RANK)
        return tape.op(
            into,
            [base, narrow, wide],
            [narrow, *([wide] if isinstance(wide, Value) else [])],
            lambda gradient: [gradient, tape.new(1, *shape), tape.new(*wide_shape)],
        )

    def _base(self, x: Value, layer: Linear) -> Value:
        elements = layer.inputs * layer.outputs
        if layer.quantised:
            return self._matmul_4bit(self.cast(x, self.precision.compute), layer.outputs, elements)
        learns = layer.learns == "weight"
        item = _FP32 if learns else self.precision.held
        return self._product(x, Parameter(elements, item, learns), layer.outputs)

    def _product(self, x: Value, weight: Parameter, outputs: int, term: int | None = None) -> Value:
        """mm or addmm: keeps the input for the weight's gradient, and the weight's cast for the input's."""
        tape = self.tape
        held = self._cast_parameter(weight)
        x = self.cast(x, self.precision.compute) if self.precision.autocast else x
        output = tape.new(outputs, x.item, x.term if term is None else term)
        keeps = [x] if weight.learns else []
        if isinstance(held, Value) and needs_gradient(x):
            keeps.append(held)
        return tape.op(output, [x, held], keeps, saves=True)

    def _cast_parameter(self, weight: Parameter) -> Parameter | Value:
        """Under autocast, the copy of an fp32 weight, which lives as long as autograd keeps it: nothing caches it."""
        compute = self.precision.compute
        if not self.precision.autocast or weight.item == compute:
            return weight
        return self.tape.op(self.tape.new(weight.elements, compute, weight.term), [weight])

    def _matmul_4bit(self, x: Value, outputs: int, elements: int) -> Value:
        """bitsandbytes' product: both ways the matrix is unpacked for as long as it is multiplied."""
        tape, item = self.tape, x.item
        output = tape.new(outputs, item)
        unpacked = tape.new(elements, item, FIXED) if self.precision.cuda else None
        del unpacked
        width = x.width

        def backward(gradient: Value) -> list[Value | None]:
            scales = tape.new(-(-elements // _NF4_BLOCK), _FP32, FIXED)
            matrix = tape.new(elements, item, FIXED)
            del scales
            made = tape.new(width, item)
            del matrix
            return [made]

        return tape.op(output, [x], [], backward, saves=True)

    def grouped_product(self, x: Value, experts: Parameter, outputs: int) -> Value:
        """torch's grouped_mm over all experts; autocast does not know it, so it runs in the weights' dtype."""
        x = self.cast(x, experts.item)
        return self.tape.op(
            self.tape.new(outputs, experts.item), [x, experts], [x] if experts.learns else [], saves=True
        )

    # Elementwise

    def cast(self, x: Value, item: int) -> Value:
        return x if x.item == item else self.tape.op(self.tape.new(x.width, item, x.term), [x])

    def unary(self, x: Value, *, temporaries: int = 0, item: int | None = None) -> Value:
        """An op whose backward reads its input (silu, gelu, pow): `temporaries` more of its size exist meanwhile."""
        tape, width, own = self.tape, x.width, x.item

        def backward(gradient: Value) -> list[Value | None]:
            extra = [tape.new(width, own) for _ in range(temporaries)]
            made = tape.new(width, own)
            del extra
            return [made]

        return tape.op(tape.new(width, item or own), [x], [x], backward)

    def scaled(self, x: Value) -> Value:
        """Times a number, or anything else whose backward keeps nothing."""
        return self.tape.op(self.tape.new(x.width, x.item, x.term), [x])

    def times(self, one: Value, other: Value) -> Value:
        keeps = ([one] if needs_gradient(other) else []) + ([other] if needs_gradient(one) else [])
        return self.tape.op(self.tape.new(one.width, max(one.item, other.item)), [one, other], keeps)

    def plus(self, one: Value, other: Value) -> Value:
        """A sum: both sides get the very gradient that came."""
        output = self.tape.new(one.width, max(one.item, other.item))
        return self.tape.op(output, [one, other], [], lambda gradient: [gradient, gradient])

    def same(self, x: Value) -> Value:
        """A copy (clone, contiguous)."""
        return self.tape.op(self.tape.new(x.width, x.item), [x], [], lambda gradient: [gradient])

    def dropout(self, x: Value) -> Value:
        """CUDA keeps a mask of one byte a number, a CPU its noise in the input's dtype."""
        mask = self.tape.new(x.width, 1 if self.precision.cuda else x.item)
        return self.tape.op(self.tape.new(x.width, x.item), [x], [mask])

    def _dropped(self, x: Value) -> Value:
        return self.dropout(x) if self.precision.dropout else x

    def split(self, x: Value, widths: tuple[int, ...]) -> list[Value]:
        """Views side by side; the gradients of all of them are joined into one tensor."""
        tape, width, item = self.tape, x.width, x.item
        whole = tape.op(Value(x.storage, width, item, x.term, None), [x])
        if whole.node is not None:
            whole.node.joins = True
        return [
            tape.op(Value(x.storage, part, item, x.term, None), [whole], [], lambda gradient: [gradient])
            for part in widths
        ]

    # Norms

    def rms_norm(self, x: Value, *, learns: bool, rows: int = 1, in_fp32: bool = False) -> Value:
        """LlamaRMSNorm, and with `in_fp32` Gemma's and OLMo 2's, which multiply by the weight in fp32, then cast.

        `rows`: how many vectors a token is normalised as (its heads, for norms of queries and keys).
        """
        tape = self.tape
        dtype, weight_item = x.item, _FP32 if learns else self.precision.held
        wide = self.cast(x, _FP32)
        inverse = self._inverse_root(wide, rows)
        normed = self._times_rows(wide, inverse)
        del wide, inverse
        weight = Parameter(x.width // rows, weight_item, learns)
        if not in_fp32:
            normed = self.cast(normed, dtype)
        width, item = x.width, max(_FP32 if in_fp32 else weight_item, normed.item)
        passes = needs_gradient(normed)

        def backward(gradient: Value) -> list[Value | None]:
            made = tape.new(width, item) if passes else None
            if not learns:
                return [made]
            full = tape.new(width, item)
            summed = tape.new(weight.elements, item, FIXED)
            del full
            return [made, summed]

        output = tape.op(tape.new(width, item), [normed, weight], [normed] if learns else [], backward, saves=True)
        del normed
        return self.cast(output, dtype) if in_fp32 else output

    def _inverse_root(self, x: Value, rows: int) -> Value:
        """rsqrt(mean(x squared) + eps), per row."""
        tape, width = self.tape, x.width
        squares = self.unary(x, temporaries=2)
        variance = tape.op(tape.new(rows, _FP32), [squares], [], lambda gradient: [tape.new(width, _FP32)])
        del squares
        shifted = tape.op(tape.new(rows, _FP32), [variance], [], lambda gradient: [gradient])
        output = tape.new(rows, _FP32)

        def backward(gradient: Value) -> list[Value | None]:
            cubed, scaled = tape.new(rows, _FP32), tape.new(rows, _FP32)
            made = tape.new(rows, _FP32)
            del cubed, scaled
            return [made]

        return tape.op(output, [shifted], [output], backward)

    def _times_rows(self, x: Value, factors: Value) -> Value:
        tape, width, rows = self.tape, x.width, factors.width

        def backward(gradient: Value) -> list[Value | None]:
            made = tape.new(width, _FP32)
            full = tape.new(width, _FP32)
            summed = tape.new(rows, _FP32)
            del full
            return [made, summed]

        return tape.op(tape.new(width, _FP32), [x, factors], [x, factors], backward)

    def layer_norm(self, x: Value, *, learns: bool) -> Value:
        """torch's native_layer_norm: keeps its input, mean and inverse deviation; autocast runs it in fp32 on CUDA."""
        tape = self.tape
        if self.precision.autocast and self.precision.cuda:
            x = self.cast(x, _FP32)
        weight, bias = (Parameter(x.width, _FP32 if learns else self.precision.held, learns) for _ in range(2))
        statistics = tape.new(2, _FP32)
        return tape.op(tape.new(x.width, x.item), [x, weight, bias], [x, statistics])

    # Rotary embedding

    def rotary(self, x: Value, table_item: int) -> Value:
        """x * cos + rotate_half(x) * sin; the tables' dtype is the residual stream's."""
        tape, width, item = self.tape, x.width, x.item
        product = max(item, table_item)
        turned = tape.op(tape.new(width, product), [x])
        first = self._slice(x)
        second = self._slice(x)
        negative = tape.op(tape.new(width // 2, item), [second])
        joined = tape.op(tape.new(width, item), [negative, first], [], lambda gradient: [gradient, gradient])
        del first, second, negative
        half = tape.op(tape.new(width, product), [joined])
        del joined
        return self.plus(turned, half)

    def _slice(self, x: Value) -> Value:
        """Half of x: a view, whose backward fills a whole tensor."""
        tape, width, item = self.tape, x.width, x.item
        view = Value(x.storage, width // 2, item, x.term, None)
        return tape.op(view, [x], [], lambda gradient: [tape.new(width, item)])

    # Attention

    def fused_attention(
        self, query: Value, key: Value, value: Value, *, heads: int, pieces: bool, expands: bool
    ) -> Value:
        """Flash attention: keeps queries, keys, values, its output and a log-sum-exp per head.

        `pieces`: one call per document, whose outputs are joined into a new tensor.
        `expands`: kernels that do not group heads get keys and values repeated.
        """
        tape = self.tape
        compute = self.precision.compute if self.precision.autocast else query.item
        query, key = self.cast(query, compute), self.cast(key, compute)
        if expands:
            key, value = self._expanded(key, query.width), self._expanded(value, query.width)
        if pieces:
            query, key, value = (self._split(each) for each in (query, key, value))
        output, statistics = tape.new(query.width, compute), tape.new(heads, _FP32)
        shapes = [(each.width, compute) for each in (query, key, value)]
        grouped = self.precision.cuda and query.width != key.width
        accumulated = (query.width, _FP32)

        def backward(gradient: Value) -> list[Value | None]:
            # FlashAttention-2 sums the queries' gradient in fp32, and makes those of grouped keys per query head.
            work = [tape.new(*accumulated)] if self.precision.cuda else []
            made: list[Value | None] = [tape.new(*shape) for shape in shapes]
            work += [tape.new(*shapes[0]) for _ in range(2)] if grouped else []
            del work
            return made

        output = tape.op(output, [query, key, value], [query, key, value, output, statistics], backward)
        if not pieces:
            return output
        return self.same(output)

    def _split(self, x: Value) -> Value:
        """Views per document; their gradients are joined into a new tensor."""
        return self.tape.op(Value(x.storage, x.width, x.item, x.term, None), [x])

    def _expanded(self, x: Value, width: int) -> Value:
        return self.tape.op(self.tape.new(width, x.item), [x])

    def eager_attention(self, query: Value, key: Value, value: Value, *, heads: int) -> Value:
        """transformers' eager_attention_forward: products over the whole length, softmax in fp32."""
        tape, width = self.tape, query.width
        key, value = (self._expanded(each, width) if each.width != width else each for each in (key, value))
        query, key = self.cast(query, self.precision.compute), self.cast(key, self.precision.compute)
        item = query.item

        def square(size: int) -> Value:
            return tape.new(heads, size, TOKEN_LENGTH)

        scores = tape.op(square(item), [query, key], [query, key])
        scores = tape.op(square(item), [scores])
        scores = tape.op(square(item), [scores], [], lambda gradient: [gradient])
        if item != _FP32:
            scores = tape.op(square(_FP32), [scores])
        shares = square(_FP32)
        shares = tape.op(shares, [scores], [shares])
        del scores
        shares = self.cast(shares, item)
        output = tape.op(tape.new(width, item), [shares, value], [shares, value])
        del shares
        return self.same(output)
