"""The tensors of a training step, phase by phase, as polynomials of the number of tokens.

A run's settings but for its lengths and loss chunk (`Shape of a step`) decide which tensors there are; they are
counted once, and `Moment`s are what then only has to be evaluated. Sizes in bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from profiles.footprint.lasting import (
    Lasting,
    is_final_norm,
    lasting,
    optimizer_step_bytes,
)
from profiles.footprint.layer_shapes import tensors_by_layer
from profiles.footprint.layer_stack import LayerStack
from profiles.footprint.tape import FIXED, KEPT, KEPT_RANK, RANK, TOKEN, TOKEN_LENGTH, TOKEN_RANK, Size
from profiles.geometry import Geometry
from profiles.settings import Objective, Settings
from profiles.shapes.layer_kinds import SLIDING
from profiles.shapes.tensor_names import EMBEDDING

_FP32 = 4
# int64 numbers a token of a batch: ids, positions, the indices of the states that predict, and their labels; beside
# them the answer that each target is of, and of a second answer all that again; or the states that make vectors, and
# of which text they are.
_BATCH_BYTES = 4 * 8
_OTHER_BATCH_BYTES: dict[Objective, int] = {
    **dict.fromkeys(("dpo", "orpo", "simpo"), 5 * 8),
    "kto": 10 * 8,
    "classification": 2 * 8,
    "embedding": 4 * 8,
}


@dataclass(frozen=True, slots=True)
class Moment:
    """What is alive at one point: gradients of parameters, and activations as fixed + per token + per token x length;
    `loss` says which of the loss's parts come on top."""

    phase: str
    gradients: int
    fixed: int
    per_token: int
    per_token_length: int = 0
    loss: str = ""


@dataclass(frozen=True)
class Step:
    """All moments that can be the highest of a step, and what else an estimate needs of it."""

    lasting: Lasting
    moments: tuple[Moment, ...]
    optimizer_transient: int
    head_gradient: int
    """Bytes of the head's gradient; 0 where the head is frozen."""
    state_bytes: int
    """Of a number in the states the loss is computed from."""
    window: int | None
    """The sliding window whose mask is made for a row that is longer; None where no mask is made."""
    host_per_token: int
    """RAM per token for the inputs of layers that recompute, where they wait there."""
    passing: tuple[tuple[int, int, int], ...]
    """Highest points (fixed, per token, per token x length) of a forward that keeps nothing, casts included."""
    recomputed_layers: int


class Counting:
    """What is known of a geometry once, for all settings, and of its layers for all ranks and ways to recompute."""

    def __init__(self, geometry: Geometry):
        self.layers = tensors_by_layer(geometry)
        kinds: dict[object, int] = {}
        # A layer is of the kind of the first layer with the same tensors.
        self.kinds = [kinds.setdefault(each.kind, index) for index, each in enumerate(self.layers)]
        self.elements = [sum(tensor.elements for tensor in each.tensors.values()) for each in self.layers]
        self.embedding = sum(t.elements for n, t in geometry.tensors.items() if EMBEDDING.search(n))
        self.final_norm = sum(t.elements for n, t in geometry.tensors.items() if is_final_norm(n))
        self._stacks: dict[tuple[object, ...], LayerStack] = {}
        self._lasting: dict[tuple[object, ...], Lasting] = {}

    def stack(self, geometry: Geometry, settings: Settings, capability: tuple[int, int] | None) -> LayerStack:
        key = (
            settings.method,
            settings.device,
            settings.compute_dtype,
            settings.attention,
            settings.dropout > 0,
            settings.targets,
            settings.trained_layers,
            settings.gradient_accumulation > 1,
            settings.offload_checkpoints,
            settings.objective,
            capability,
        )
        if key not in self._stacks:
            self._stacks[key] = LayerStack(geometry, settings, self.layers, self.kinds, self.elements, capability)
        return self._stacks[key]

    def lasting(self, geometry: Geometry, settings: Settings) -> Lasting:
        key = (
            settings.method,
            settings.compute_dtype,
            settings.targets,
            settings.trained_layers,
            settings.rank,
            settings.optimizer,
            settings.double_quantisation,
            settings.writes,
        )
        if key not in self._lasting:
            self._lasting[key] = lasting(geometry, settings)
        return self._lasting[key]


def count_step(geometry: Geometry, settings: Settings, counting: Counting, capability: tuple[int, int] | None) -> Step:
    """The moments of a step under `settings`, whose lengths and loss chunk do not matter here."""
    return _Step(geometry, settings, counting, capability).step()


class _Step:
    def __init__(self, geometry: Geometry, settings: Settings, counting: Counting, capability: tuple[int, int] | None):
        self.geometry, self.settings, self.counting = geometry, settings, counting
        self.accumulating = settings.gradient_accumulation > 1
        self.lasting = counting.lasting(geometry, settings)
        self.stack = counting.stack(geometry, settings, capability)
        self.costs, self.norm, self.precision = self.stack.costs, self.stack.norm, self.stack.precision
        self.first_learning, self.offloaded = self.stack.first_learning, self.stack.offloaded
        every = settings.gradient_checkpointing
        self.recomputes = [
            bool(every) and layer >= self.first_learning and (layer - self.first_learning) % every == 0
            for layer in range(geometry.layers)
        ]

    def step(self) -> Step:
        geometry, settings = self.geometry, self.settings
        windowed = settings.attention == "sdpa" and SLIDING in geometry.config.layer_types
        offloaded = sum(self.recomputes) if self.offloaded else 0
        kinds = {id(cost): cost for cost in self.costs}.values()
        passing = _highest(_flat(point, settings.rank) for cost in kinds for point in cost.passing)
        return Step(
            lasting=self.lasting,
            moments=(*self._cached_moments(), self._optimizer_moment()),
            optimizer_transient=optimizer_step_bytes(self.lasting, settings),
            head_gradient=self._head_gradient(),
            state_bytes=self._state_bytes(),
            window=geometry.config.sliding_window if windowed else None,
            host_per_token=offloaded * geometry.hidden_size * self.precision.held,
            passing=passing,
            recomputed_layers=sum(self.recomputes),
        )

    # The moments

    def _moments(self) -> Iterable[Moment]:
        geometry, settings = self.geometry, self.settings
        hidden, states = geometry.hidden_size, self.geometry.hidden_size * self._state_bytes()
        before, telling = self._kept_before()
        gradients = self._gradients_after()
        base = self._base()
        head = self._head_gradient()
        waiting = head if geometry.tied and head else 0
        norm = self.norm

        for layer in telling:
            cost = self.costs[layer]
            points = cost.passing if self._passes(layer) else cost.forward
            yield from self._points("forward", self._accumulated(), (before[layer], base), points)
        norm_kept = _flat(norm.kept, settings.rank)
        yield from self._points("forward", self._accumulated(), (before[-1], base), norm.forward)
        yield self._moment("loss", self._accumulated(), _total((before[-1], base, norm_kept)), "loss")
        # The gradient of the chosen states, and that of all states which it is added into.
        yield self._moment(
            "first backward", gradients[-1] + waiting, _total((before[-1], base, norm_kept, (0, 2 * states, 0)))
        )
        yield from self._points("first backward", gradients[-1] + waiting, (before[-1], base), norm.backward)
        for layer in telling:
            if layer < self.first_learning:
                continue
            cost, recomputes = self.costs[layer], self.recomputes[layer]
            name = "first backward" if layer == geometry.layers - 1 else "backward"
            name = "last backward" if layer == self.first_learning else name
            points = cost.recomputed if recomputes else cost.backward
            yield from self._points(name, gradients[layer] + waiting, (before[layer], base), points)
        if settings.method == "full":
            yield from self._embedding(base, hidden, waiting)

    def _embedding(self, base: tuple[int, int, int], hidden: int, waiting: int) -> Iterable[Moment]:
        """The embedding's gradient, as large as the embedding; a tied head's waits for it, and both are summed."""
        table = self.counting.embedding * _FP32
        gradients = self.lasting.gradients
        made = table if self.accumulating else 0
        if waiting:
            made = waiting * (3 if self.accumulating else 2)
        yield self._moment("embedding's backward", gradients + made, _total((base, (0, hidden * _FP32, 0))))

    def _cached_moments(self) -> tuple[Moment, ...]:
        """The moments up to the optimizer's, which has no part in them."""
        key = (self.settings.rank, self.settings.gradient_checkpointing, self.settings.gradient_accumulation)
        known = self.stack.moments.get(key)
        if known is None:
            known = self.stack.moments[key] = _highest_moments(self._moments())
        return known

    def _optimizer_moment(self) -> Moment:
        made = optimizer_step_bytes(self.lasting, self.settings)
        return Moment("optimizer", self.lasting.gradients, made, self._batch_bytes())

    def _batch_bytes(self) -> int:
        return _OTHER_BATCH_BYTES.get(self.settings.objective, _BATCH_BYTES)

    def _points(
        self, phase: str, gradients: int, kept: Sequence[tuple[int, int, int]], points: tuple[Size, ...]
    ) -> Iterable[Moment]:
        fixed, per_token, per_token_length = _total(kept)
        for made, *alive in _flat_points(points, self.settings.rank):
            yield Moment(phase, gradients + made, fixed + alive[0], per_token + alive[1], per_token_length + alive[2])

    def _accumulated(self) -> int:
        return self.lasting.gradients if self.accumulating else 0

    def _moment(self, phase: str, gradients: int, alive: tuple[int, int, int], loss: str = "") -> Moment:
        return Moment(phase, gradients, *alive, loss)

    def _kept_before(self) -> tuple[list[tuple[int, int, int]], list[int]]:
        """What is kept before each layer and, at the end, by all; and the layers that can hold the peak.

        Of layers that cost the same these are the first and the last, since what is kept before a layer and the
        gradients made after it change evenly from one to the next.
        """
        fixed = per_token = per_token_length = 0
        before = [(0, 0, 0)]
        parts: dict[tuple[int, bool], tuple[int, int, int]] = {}
        first: dict[tuple[int, bool], int] = {}
        last: dict[tuple[int, bool], int] = {}
        for layer, key in enumerate(zip(map(id, self.costs), self.recomputes, strict=True)):
            if key not in parts:
                parts[key] = self._kept(layer)
                first[key] = layer
            last[key] = layer
            part = parts[key]
            fixed, per_token = fixed + part[0], per_token + part[1]
            per_token_length += part[2]
            before.append((fixed, per_token, per_token_length))
        return before, sorted({*first.values(), *last.values()})

    def _passes(self, layer: int) -> bool:
        return layer < self.first_learning or self.recomputes[layer]

    def _kept(self, layer: int) -> tuple[int, int, int]:
        """What `layer` keeps until its backward: its input alone, where it recomputes."""
        if layer < self.first_learning:
            return (0, 0, 0)
        if self.recomputes[layer]:
            return (0, 0 if self.offloaded else self.geometry.hidden_size * self.precision.held, 0)
        return _flat(self.costs[layer].kept, self.settings.rank)

    def _base(self) -> tuple[int, int, int]:
        """Alive through the whole step: the batch, rotary tables, and what the embedding keeps."""
        geometry, settings = self.geometry, self.settings
        batches = 1 if self.precision.cuda else settings.gradient_accumulation
        per_token = self._batch_bytes() * batches
        layer = self.stack.last
        if layer.rotary:
            kinds = len(set(geometry.config.layer_types)) if geometry.model_type == "gemma3_text" else 1
            per_token += 2 * kinds * geometry.head_dim * self.precision.held
        if layer.residual_dropout and settings.method == "full":
            per_token += geometry.hidden_size * (1 if self.precision.cuda else self.precision.held)
        return (0, per_token, 0)

    # Gradients

    def _gradients_after(self) -> list[int]:
        """Bytes of the parameters' gradients that exist when a layer's backward begins; the last entry: before all."""
        geometry, method, rank = self.geometry, self.settings.method, self.settings.rank
        pairs = zip(self.stack.gradients, self.stack.gradients_by_rank, strict=True)
        own = [fixed + by_rank * rank for fixed, by_rank in pairs]
        total = 0 if geometry.tied else self._head_gradient()
        found = [total]
        if method in ("full", "partial"):
            total += self.counting.final_norm * _FP32
        for layer in reversed(range(geometry.layers)):
            found.append(total)
            total += own[layer]
        # Ordered by layer, with what there is before the final norm's at the end.
        ordered = [*reversed(found[1:]), found[0]]
        return [self.lasting.gradients] * len(ordered) if self.accumulating else ordered

    def _head_gradient(self) -> int:
        if self.settings.method != "full" or not self.settings.writes:
            return 0
        return self.geometry.vocab_size * self.geometry.hidden_size * _FP32

    def _state_bytes(self) -> int:
        """Of a number in the final norm's output: an fp32 weight makes it fp32, unless the norm casts at its end."""
        learns = self.stack.last.norms_learn and self.stack.last.norm != "rms fp32"
        return _FP32 if learns else self.precision.held


def _flat(size: Size, rank: int) -> tuple[int, int, int]:
    """(fixed, per token, per token x length) at a rank; gradients of parameters are counted elsewhere."""
    return size[FIXED] + size[RANK] * rank, size[TOKEN] + size[TOKEN_RANK] * rank, size[TOKEN_LENGTH]


@lru_cache(maxsize=4096)
def _flat_points(points: tuple[Size, ...], rank: int) -> tuple[tuple[int, int, int, int], ...]:
    """Points at a rank: (gradients of parameters, fixed, per token, per token x length), those that can be highest."""
    flat = {(point[KEPT] + point[KEPT_RANK] * rank, *_flat(point, rank)) for point in points}
    found: list[tuple[int, int, int, int]] = []
    for point in sorted(flat, key=lambda each: (each[2], each[3], each[0] + each[1]), reverse=True):
        lasting_ = point[0] + point[1]
        if not any(o[0] + o[1] >= lasting_ and o[2] >= point[2] and o[3] >= point[3] for o in found):
            found.append(point)
    return tuple(found)


def _highest_moments(moments: Iterable[Moment]) -> tuple[Moment, ...]:
    """Of each phase the moments that are its highest for some number of tokens."""
    phases: dict[tuple[str, int], list[Moment]] = {}
    for moment in moments:
        phases.setdefault((moment.phase, moment.per_token_length), []).append(moment)
    return tuple(moment for group in phases.values() for moment in _upper_envelope(group))


def _upper_envelope(moments: list[Moment]) -> list[Moment]:
    """Of straight lines over the number of tokens those that are the highest somewhere."""
    found: list[Moment] = []
    for line in sorted(moments, key=lambda each: (each.per_token, each.gradients + each.fixed)):
        while found and _hidden(found[-1], line, found[-2] if len(found) > 1 else None):
            found.pop()
        found.append(line)
    return found


def _hidden(middle: Moment, steeper: Moment, flatter: Moment | None) -> bool:
    """Whether one of the others is at least as high as `middle` wherever tokens are not negative."""
    ahead = middle.gradients + middle.fixed - steeper.gradients - steeper.fixed
    if ahead <= 0:
        return True
    if flatter is None:
        return False
    lead = flatter.gradients + flatter.fixed - middle.gradients - middle.fixed
    # middle rises above flatter at lead / (their slopes' difference) tokens, steeper above middle at ahead / ...
    return lead * (steeper.per_token - middle.per_token) >= ahead * (middle.per_token - flatter.per_token)


def _total(parts: Iterable[tuple[int, int, int]]) -> tuple[int, int, int]:
    fixed = per_token = per_token_length = 0
    for part in parts:
        fixed += part[0]
        per_token += part[1]
        per_token_length += part[2]
    return fixed, per_token, per_token_length


def _highest(points: Iterable[tuple[int, int, int]]) -> tuple[tuple[int, int, int], ...]:
    found: list[tuple[int, int, int]] = []
    for point in sorted(set(points), reverse=True):
        if not any(a >= point[0] and b >= point[1] and c >= point[2] for a, b, c in found):
            found.append(point)
    return tuple(found)
