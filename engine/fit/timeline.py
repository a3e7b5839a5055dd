"""A step of a few layers, segment by segment, put together to the step of the whole depth.

A decoder's layers of one kind keep and free the same bytes, wherever they stand. So it is enough to run one layer of
each kind, and the first and the last: what each adds to the bytes that live, and how far it goes beyond that, is then
repeated for every layer that did not run. Nothing is fitted, and a depth of few layers is the sum of its own segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Mark:
    """A point of the step: bytes living there, and the most that lived since the mark before."""

    name: str
    now: int
    highest: int


@dataclass
class Timeline:
    """The marks of one micro-batch, in order.

    "enter 3" and "leave 3" are around layer 3's forward, "loss" is the end of the forward; "gradient 3" is where the
    gradient of layer 3's output is complete, so that its backward begins; "embedding" where that of the first layer's
    input is, if it has one; "backward" is the end.
    """

    marks: list[Mark] = field(default_factory=list)

    def add(self, name: str, now: int, highest: int) -> None:
        self.marks.append(Mark(name, now, highest))

    def whole_depth(self, stands_for: Sequence[int], missing_gradients: int) -> dict[str, int]:
        """The highest bytes of each phase of a step in which every layer runs.

        `stands_for[i]` is the layer that ran and is of layer i's kind; `missing_gradients` are the bytes that the
        layers which did not run would have left as gradients.
        """
        forward, level = self._forward(stands_for)
        where = {mark.name: index for index, mark in enumerate(self.marks)}
        loss = self.marks[where["loss"]]
        last = len(stands_for) - 1
        phases = {"forward": forward, "loss": loss.highest + level - self.marks[where[f"leave {last}"]].now}
        end = self.marks[-1]
        level = end.now + missing_gradients
        if "embedding" in where:
            phases["embedding's backward"] = level + end.highest - end.now
            level += self.marks[where["embedding"]].now - end.now
        layers = [layer for layer in range(len(stands_for)) if f"gradient {stands_for[layer]}" in where]
        for layer in layers:
            start = where[f"gradient {stands_for[layer]}"]
            before, after = self.marks[start], self.marks[start + 1]
            name = {layers[0]: "last backward", layers[-1]: "first backward"}.get(layer, "backward")
            phases[name] = max(phases.get(name, 0), level + after.highest - after.now)
            level += before.now - after.now
        if layers:
            head = self.marks[where[f"gradient {last}"]]
            phases["first backward"] = max(phases["first backward"], level + head.highest - head.now)
        return phases

    def _forward(self, stands_for: Sequence[int]) -> tuple[int, int]:
        """(highest bytes in the layers' forward, bytes that live after it).

        What a layer adds is counted up to where the next begins: only then has the model's loop let go of its input.
        """
        where = {mark.name: mark for mark in self.marks}
        entered = sorted(set(stands_for))
        ends = {layer: where[f"enter {after}"].now for layer, after in pairwise(entered)}
        ends[entered[-1]] = where[f"leave {entered[-1]}"].now
        highest, level = where["enter 0"].highest, where["enter 0"].now
        for layer in stands_for:
            before, after = where[f"enter {layer}"], where[f"leave {layer}"]
            highest = max(highest, level + after.highest - before.now)
            level += ends[layer] - before.now
        return highest, level
