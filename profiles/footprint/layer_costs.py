"""What one decoder layer costs, from running it on a tape: kept after its forward, and the most alive at any op.

Run once for each kind of layer; sizes are polynomials (profiles.footprint.tape.Size), so that one run serves every
length, rank and micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from profiles.footprint.decoder_layers import DecoderLayer, LayerRun
from profiles.footprint.tape import Size, Tape, Value
from profiles.footprint.tape_ops import Ops, Precision


@dataclass(frozen=True, slots=True)
class LayerCost:
    """Bytes as polynomials. Points are totals alive at an op, of which any may be the highest."""

    kept: Size
    """After the forward: what its backward needs, the input where it is among that; not the output."""
    forward: tuple[Size, ...]
    """While it runs forward and keeps that; input and output included."""
    passing: tuple[Size, ...]
    """While it runs forward and keeps nothing (evaluation, frozen layers, layers that recompute)."""
    backward: tuple[Size, ...]
    """While it runs backward, what it kept included."""
    recomputed: tuple[Size, ...]
    """While it computes its forward again and then runs backward; its input included."""


@lru_cache(maxsize=4096)
def layer_cost(
    layer: DecoderLayer,
    precision: Precision,
    *,
    input_learns: bool,
    accumulating: bool,
    offloaded: bool = False,
    ops: type[Ops] = Ops,
) -> LayerCost:
    """The cost of `layer`; `input_learns` where gradients flow further back than its input. `offloaded`: whether the
    input waits in RAM for a recompute. `ops`: the ops the layer runs on (another trainer's, say)."""
    return _Cost(LayerRun.forward, layer, precision, input_learns, accumulating, offloaded, ops).cost()


@lru_cache(maxsize=1024)
def final_norm_cost(
    layer: DecoderLayer, precision: Precision, *, accumulating: bool, ops: type[Ops] = Ops
) -> LayerCost:
    """The cost of the norm after the last layer, which is as those of `layer` are."""
    return _Cost(LayerRun.norm, layer, precision, True, accumulating, False, ops).cost()


@dataclass(frozen=True, slots=True)
class _Cost:
    forward: Callable[[LayerRun, Value], Value]
    layer: DecoderLayer
    precision: Precision
    input_learns: bool
    accumulating: bool
    offloaded: bool
    ops: type[Ops]

    def start(self, *, recording: bool = True) -> tuple[Tape, LayerRun, Value]:
        tape = Tape(accumulating=self.accumulating, recording=recording)
        x = tape.source(self.layer.hidden, self.precision.held, learning=recording and self.input_learns)
        return tape, LayerRun(self.ops(tape, self.precision), self.layer), x

    def cost(self) -> LayerCost:
        tape, run, x = self.start()
        output = self.forward(run, x)
        del x
        forward = tape.highest()
        kept = _without(tape, output)
        backward: tuple[Size, ...] = ()
        recomputed: tuple[Size, ...] = ()
        if output.node is not None:
            item, last = output.item, output.node
            del output
            begin = len(tape.points)
            tape.backward(last, tape.new(self.layer.hidden, item))
            backward = tape.highest(begin)
            recomputed = self.recomputed()
        return LayerCost(kept, forward, self.passing(), backward, recomputed)

    def passing(self) -> tuple[Size, ...]:
        tape, run, x = self.start(recording=False)
        self.forward(run, x)
        return tape.highest()

    def recomputed(self) -> tuple[Size, ...]:
        """torch.utils.checkpoint, not reentrant: with the gradient at hand the forward runs again up to the last
        tensor that it saves, and the backward goes on from there. The checkpoint holds its input until the end; one
        that came back from RAM only while it is needed."""
        tape, run, x = self.start()
        gradient = tape.new(self.layer.hidden, x.item)
        output = self.forward(run, x)
        again = tape.highest(0, tape.last_kept)
        assert output.node is not None
        last = output.node
        del output
        if self.offloaded:
            del x
        begin = len(tape.points)
        tape.backward(last, gradient)
        return _highest(again + tape.highest(begin))


def _highest(points: tuple[Size, ...]) -> tuple[Size, ...]:
    tape = Tape()
    tape.points = list(points)
    return tape.highest()


def _without(tape: Tape, output: Value) -> Size:
    """What is alive besides `output`."""
    live = list(tape.live)
    live[output.storage.term] -= output.storage.bytes
    return tuple(live)
