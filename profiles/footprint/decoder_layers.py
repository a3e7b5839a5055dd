"""Decoder layers as transformers 5 writes them, run on a tape: the same calls and the same local variables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from profiles.footprint.tape import Parameter, Value, needs_gradient
from profiles.footprint.tape_ops import Linear, Ops

_FP32, _INT64 = 4, 8


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture's layer: `count` gated MLPs of width `inner`, of which a token passes `chosen`."""

    count: int
    chosen: int
    inner: int
    learn: bool
    shared_inner: int = 0
    shared_gate: bool = False


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """What a layer's modelling code depends on."""

    hidden: int
    queries: int
    keys: int
    heads: int
    norm: Literal["rms", "rms fp32", "layer"]
    placement: Literal["before", "after", "around"]
    """Where the norms are: before attention and MLP, after them (OLMo 2), or both (Gemma 2 and 3)."""
    head_norms: Literal["", "per head", "whole"]
    kv_heads: int
    rotary: bool
    activation: Literal["silu", "gelu", "gelu_new"]
    linears: tuple[tuple[str, Linear], ...]
    """By role: q, k, v, o or qkv, o; gate, up, down or gate_up, down or up, down; router."""
    experts: Experts | None
    residual_dropout: bool
    residual_scaled: bool
    norms_learn: bool
    attention: Literal["fused", "eager"]
    pieces: bool
    expands: bool
    table_item: int
    """Bytes of a number in the rotary tables: the residual stream's."""


class LayerRun:
    """One forward of a layer."""

    def __init__(self, ops: Ops, layer: DecoderLayer):
        self.ops, self.layer = ops, layer
        self.linears = dict(layer.linears)

    def forward(self, x: Value) -> Value:
        placement = self.layer.placement
        hidden = self.norm(x) if placement != "after" else x
        hidden = self.attention(hidden)
        if placement != "before":
            hidden = self.norm(hidden)
        x = self.add(x, hidden)
        hidden = self.norm(x) if placement != "after" else x
        hidden = self.mixture(hidden) if self.layer.experts else self.mlp(hidden)
        if placement != "before":
            hidden = self.norm(hidden)
        return self.add(x, hidden)

    def add(self, residual: Value, branch: Value) -> Value:
        if self.layer.residual_scaled:
            branch = self.ops.scaled(branch)
        return self.ops.plus(residual, branch)

    def norm(self, x: Value, rows: int = 1) -> Value:
        kind, learns = self.layer.norm, self.layer.norms_learn
        if kind == "layer":
            return self.ops.layer_norm(x, learns=learns)
        return self.ops.rms_norm(x, learns=learns, rows=rows, in_fp32=kind == "rms fp32")

    def attention(self, x: Value) -> Value:
        layer, ops = self.layer, self.ops
        query, key, value = self.projections(x)
        if layer.head_norms:
            per_head = layer.head_norms == "per head"
            query = self.norm(query, layer.heads if per_head else 1)
            key = self.norm(key, layer.kv_heads if per_head else 1)
        if layer.rotary:
            query, key = ops.rotary(query, layer.table_item), ops.rotary(key, layer.table_item)
        if layer.attention == "eager":
            output = ops.eager_attention(query, key, value, heads=layer.heads)
        else:
            output = ops.fused_attention(
                query, key, value, heads=layer.heads, pieces=layer.pieces, expands=layer.expands
            )
        output = ops.linear(output, self.linears["o"])
        return ops.dropout(output) if layer.residual_dropout else output

    def projections(self, x: Value) -> tuple[Value, Value, Value]:
        layer, ops = self.layer, self.ops
        if "qkv" not in self.linears:
            query = ops.linear(x, self.linears["q"])
            key = ops.linear(x, self.linears["k"])
            return query, key, ops.linear(x, self.linears["v"])
        query, key, value = ops.split(ops.linear(x, self.linears["qkv"]), (layer.queries, layer.keys, layer.keys))
        return query, key, value

    def mlp(self, x: Value) -> Value:
        ops = self.ops
        if "gate" in self.linears:
            hidden = ops.times(self.activated(ops.linear(x, self.linears["gate"])), ops.linear(x, self.linears["up"]))
        elif "gate_up" in self.linears:
            both = self.linears["gate_up"]
            gate, up = ops.split(ops.linear(x, both), (both.outputs // 2, both.outputs // 2))
            hidden = ops.times(up, self.activated(gate))
        else:
            hidden = self.activated(ops.linear(x, self.linears["up"]))
        hidden = ops.linear(hidden, self.linears["down"])
        return ops.dropout(hidden) if self.layer.residual_dropout else hidden

    def activated(self, x: Value) -> Value:
        if self.layer.activation != "gelu_new":
            return self.ops.unary(x)
        return self.gelu_new(x)

    def gelu_new(self, x: Value) -> Value:
        """GPT-2's: 0.5 x (1 + tanh(c (x + 0.044715 x^3))), op by op."""
        ops = self.ops
        half = ops.scaled(x)
        inner = ops.scaled(ops.plus(x, ops.scaled(ops.unary(x, temporaries=2))))
        tape = ops.tape
        width, item = inner.width, inner.item
        bent = tape.new(width, item)
        bent = tape.op(bent, [inner], [bent])
        del inner
        lifted = tape.op(tape.new(width, item), [bent], [], lambda gradient: [gradient])
        del bent
        return ops.times(half, lifted)

    def mixture(self, x: Value) -> Value:
        """Router, then transformers.integrations.moe.grouped_mm_experts_forward: pairs of token and expert, sorted."""
        experts, ops = self.layer.experts, self.ops
        assert experts is not None
        if not experts.shared_inner:
            return self.routed(x, experts)
        shared = self.mlp(x)
        routed = self.routed(x, experts)
        if experts.shared_gate:
            gate = ops.linear(x, self.linears["shared_gate"])
            gate = ops.unary(gate)
            shared = ops.times(shared, gate)
        return ops.plus(routed, shared)

    def routed(self, x: Value, experts: Experts) -> Value:
        ops, tape = self.ops, self.ops.tape
        chosen, hidden, inner = experts.chosen, x.width, experts.inner
        shares = self.route(x, experts)
        order = tape.new(2 * chosen, _INT64)
        # hidden_states[perm // k]: its backward fills a tensor of all tokens.
        source = tape.new(chosen, _INT64)
        picked = tape.op(tape.new(chosen * hidden, x.item), [x], [source])
        del source
        item = _FP32 if experts.learn else ops.precision.held
        size = experts.count * hidden * inner
        both = ops.grouped_product(picked, Parameter(2 * size, item, experts.learn), 2 * chosen * inner)
        del picked
        gate, up = ops.split(both, (chosen * inner, chosen * inner))
        del both
        product = ops.times(ops.unary(gate), up)
        product = ops.grouped_product(product, Parameter(size, item, experts.learn), chosen * hidden)
        weighted = self.weighted(product, shares, hidden)
        back = tape.new(chosen, _INT64)
        weighted = tape.op(tape.new(chosen * hidden, weighted.item), [weighted], [back])
        width, own = chosen * hidden, weighted.item
        summed = tape.op(tape.new(hidden, own), [weighted], [], lambda gradient: [tape.new(width, own)])
        del weighted, order
        return ops.cast(summed, x.item)

    def weighted(self, product: Value, shares: Value, hidden: int) -> Value:
        """Each pair's output times its router share."""
        tape, width, pairs, item = self.ops.tape, product.width, shares.width, product.item
        share_item = shares.item

        def backward(gradient: Value) -> list[Value | None]:
            made = tape.new(width, item)
            full = tape.new(width, max(item, share_item))
            summed = tape.new(pairs, share_item)
            del full
            return [made, summed]

        keeps = [product, shares] if needs_gradient(shares) else [shares]
        output = tape.new(width, max(item, share_item))
        return tape.op(output, [product, shares], keeps, backward)

    def route(self, x: Value, experts: Experts) -> Value:
        """Shares of the chosen experts: softmax over all in fp32, the top k, normalised."""
        ops, tape = self.ops, self.ops.tape
        logits = ops.linear(x, self.linears["router"])
        logits = ops.cast(logits, _FP32)
        shares = tape.new(experts.count, _FP32)
        shares = tape.op(shares, [logits], [shares])
        del logits
        chosen = tape.new(experts.chosen, _FP32)
        indices = tape.new(experts.chosen, _INT64)
        count = experts.count

        def scatter(gradient: Value) -> list[Value | None]:
            zeros = tape.new(count, _FP32)
            made = tape.new(count, _FP32)
            del zeros
            return [made]

        chosen = tape.op(chosen, [shares], [indices], scatter)
        del shares
        total = tape.op(tape.new(1, _FP32), [chosen], [], lambda gradient: [gradient])
        copied = tape.new(experts.chosen, _FP32)
        copied = tape.op(copied, [chosen, total], [total, copied])
        picked = tape.op(tape.new(experts.chosen, _FP32), [copied])
        return picked
