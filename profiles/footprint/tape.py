"""An autograd that only counts: symbolic tensors whose lifetimes are those of torch's, and the bytes alive at each op.

A model's layer is written down op by op, in Python functions with the variables that its forward has. A storage is
alive as long as a variable, a recorded node or a gradient refers to it, as in torch, because it is Python's own
reference count that says so here as there. Running a layer forward and backward on the tape then yields what autograd
keeps of it and the most that is alive at any op: nothing is estimated.

Sizes are polynomials of the number of tokens, the LoRA rank and the row's length, so that one run serves every length
and micro-batch. Every storage is one term of it: `coefficient x one of TERMS`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

FIXED, RANK, TOKEN, TOKEN_RANK, TOKEN_LENGTH, KEPT, KEPT_RANK = range(7)
"""Terms a size is a multiple of: 1, rank, tokens, tokens x rank, tokens x row length; and, for gradients of
parameters, which outlive the layer, 1 and rank."""
TERMS = 7

Size = tuple[int, ...]
"""Bytes per term, TERMS of them."""


class Storage:
    """Bytes that are alive while something refers to them."""

    __slots__ = ("_live", "bytes", "term")

    def __init__(self, tape: Tape, size: int, term: int):
        self._live, self.bytes, self.term = tape.live, size, term
        tape.live[term] += size
        tape.points.append(tuple(tape.live))

    def __del__(self) -> None:
        self._live[self.term] -= self.bytes


class Value:
    """A tensor: `width` numbers of `item` bytes per unit of its term; `node` made it, None where no gradient flows."""

    __slots__ = ("item", "node", "storage", "term", "width")

    def __init__(self, storage: Storage, width: int, item: int, term: int, node: Node | None):
        self.storage, self.width, self.item, self.term, self.node = storage, width, item, term, node


@dataclass(frozen=True, slots=True)
class Parameter:
    """A matrix or vector of the model, of `elements` x rank or x 1 numbers."""

    elements: int
    item: int
    learns: bool
    term: int = FIXED


Input = Value | Parameter
Backward = Callable[[Value], list[Value | None]]


class Node:
    """A recorded op: where its gradients go, what it keeps, and how its gradients are made."""

    __slots__ = ("backward", "inputs", "joins", "kept", "targets")

    def __init__(self, inputs: Sequence[Input], kept: Sequence[Storage], backward: Backward):
        self.joins = False
        # The edges of the graph: a parameter, an earlier node, or None; with the dtype its gradient must have.
        self.targets = [each if isinstance(each, Parameter) else each.node for each in inputs]
        self.inputs = [each.item for each in inputs]
        self.kept, self.backward = list(kept), backward


def needs_gradient(value: Input) -> bool:
    return value.learns if isinstance(value, Parameter) else value.node is not None


def _shape(value: Input) -> tuple[int, int, int]:
    if isinstance(value, Parameter):
        return value.elements, value.item, value.term
    return value.width, value.item, value.term


class Tape:
    """What is alive (`live`, bytes per term), at which points it was most (`points`), and the ops so far (`nodes`)."""

    def __init__(self, *, accumulating: bool = False, recording: bool = True):
        self.live = [0] * TERMS
        self.points: list[Size] = []
        self.last_kept = 0
        self.nodes: list[Node] = []
        self.gradients: list[Storage] = []
        self.accumulating, self.recording = accumulating, recording

    def new(self, width: int, item: int, term: int = TOKEN, node: Node | None = None) -> Value:
        """A new tensor."""
        return Value(Storage(self, width * item, term), width, item, term, node)

    def source(self, width: int, item: int, *, learning: bool) -> Value:
        """An input of the layer; `learning` when a gradient flows back to whoever made it."""
        value = self.new(width, item)
        if learning:
            value.node = Node((), (), lambda gradient: [])
        return value

    def op(
        self,
        output: Value,
        inputs: Sequence[Input],
        keeps: Sequence[Value] = (),
        backward: Backward | None = None,
        *,
        saves: bool = False,
    ) -> Value:
        """Record that `output` came from `inputs`; `keeps` is what the backward needs. Returns `output`.

        `saves`: autograd saves something here besides `keeps` (a weight), which is how far a recompute goes.
        Without `backward` each input that needs one gets a new gradient of its own shape.
        """
        if not self.recording or not any(map(needs_gradient, inputs)):
            return output
        if keeps or saves:
            self.last_kept = len(self.points)
        made = backward or self._fresh_gradients(inputs)
        output.node = Node(inputs, [each.storage for each in keeps], made)
        self.nodes.append(output.node)
        return output

    def _fresh_gradients(self, inputs: Sequence[Input]) -> Backward:
        shapes = [_shape(each) if needs_gradient(each) else None for each in inputs]
        return lambda gradient: [self.new(*shape) if shape else None for shape in shapes]

    def backward(self, last: Node, gradient: Value) -> None:
        """Run the recorded ops backward from `last`, the latest first, as torch's engine does with one thread.

        Each op's inputs and kept storages are freed when it is done; gradients that meet are added into a new tensor.
        """
        waiting: dict[Node, list[Value]] = {last: [gradient]}
        del gradient, last
        while self.nodes:
            node = self.nodes.pop()
            arrived = waiting.pop(node, None)
            if arrived is None:
                continue
            made = node.backward(arrived[-1])
            del arrived
            node.kept.clear()
            made.reverse()
            for target, item in zip(node.targets, node.inputs, strict=True):
                given = made.pop() if made else None
                if given is None or target is None:
                    continue
                if given.item != item:
                    given = self.new(given.width, item, given.term)
                if isinstance(target, Parameter):
                    self._keep(given)
                elif target not in waiting:
                    waiting[target] = [given]
                elif target.joins:
                    waiting[target].append(given)
                else:
                    waiting[target] = [self.new(given.width, item, given.term)]
                del given
            del node
        waiting.clear()

    def _keep(self, gradient: Value) -> None:
        """A parameter's gradient: it outlives the layer, or is added to what is there and freed."""
        if not self.accumulating:
            storage = gradient.storage
            kept = KEPT if storage.term == FIXED else KEPT_RANK
            self.live[storage.term] -= storage.bytes
            storage.term = kept
            self.live[kept] += storage.bytes
            self.gradients.append(storage)

    def highest(self, since: int = 0, until: int | None = None) -> tuple[Size, ...]:
        """The points that can be the highest for some number of tokens: those no other is at least as high as in every
        term."""
        found: list[Size] = []
        for point in sorted(set(self.points[since:until]), reverse=True):
            if not any(all(map(operator.ge, other, point)) for other in found):
                found.append(point)
        return tuple(found)
