"""What the time of a training step needs to know of a model, summed up once per geometry."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from profiles.geometry import Geometry
from profiles.shapes.layer_kinds import SLIDING
from profiles.shapes.tensor_names import EXPERT, LAYER, OTHER_SENSES

_HEAD_NORM = re.compile(r"\.[qk]_norm\.")
# Costs a token the same however long the text is; its products are among the matrices.
_LINEAR = "linear_attention"


@dataclass(frozen=True, slots=True)
class StepShape:
    """Sizes over all decoder layers; widths in numbers per token."""

    key: str
    """Models of one key take the same time: "llama-32x4096-8030261248"."""
    layers: int
    hidden: int
    matrix_elements: int
    """Elements of the layers' matrices that a token is multiplied with: of experts, those that it is sent to."""
    stored_elements: int
    """Elements of all the layers' matrices."""
    quantised_elements: int
    """Of these, what qlora holds in 4 bits."""
    matrices: int
    tensors: int
    parameters: int
    head_elements: int
    moved_numbers: int
    """Numbers read or written per token by the norms, rotations, activations and sums of one layer's forward."""
    layer_operations: int
    """Kernels of one layer's forward."""
    attention_width: int
    """Widths of queries and values together, over all heads: 2 FLOPs for each, per token and token looked at."""
    heads: int
    full_layers: int
    window_layers: int
    window: int
    sparse: bool
    """Whether it is a mixture of experts."""
    adapted: dict[object, tuple[int, int, int]] = field(default_factory=dict, compare=False)
    """Per choice of targets: (layers adapted, sum of inputs, sum of outputs)."""


def step_shape(geometry: Geometry) -> StepShape:
    """The sums for `geometry`, kept with it: a planner asks thousands of times for the same one."""
    kept = vars(geometry).get("_step_shape")
    if kept is None:
        kept = vars(geometry)["_step_shape"] = _sum_up(geometry)
    return kept


def adapted_widths(geometry: Geometry, shape: StepShape, targets: str | tuple[str, ...]) -> tuple[int, int, int]:
    """(linear layers, sum of their inputs, sum of their outputs) that `targets` names."""
    found = shape.adapted.get(targets)
    if found is None:
        chosen = [
            sizes
            for name, sizes in geometry.linear_shapes.items()
            if targets == "all-linear" or any(name == each or name.endswith(f".{each}") for each in targets)
        ]
        found = len(chosen), sum(inputs for inputs, _ in chosen), sum(outputs for _, outputs in chosen)
        shape.adapted[targets] = found
    return found


def _sum_up(geometry: Geometry) -> StepShape:
    config = geometry.config
    experts, used = config.experts, config.experts_per_token
    hidden = geometry.hidden_size
    matrix_elements, stored_elements, matrices, norms = 0.0, 0, 0, 0
    for name, tensor in geometry.tensors.items():
        if not LAYER.search(name) or OTHER_SENSES.search(name):
            continue
        if len(tensor.shape) < 2:
            norms += name.endswith("weight") and tensor.shape == (hidden,) and not _HEAD_NORM.search(name)
            continue
        share = used / experts if experts and EXPERT.search(name) else 1.0
        matrix_elements += tensor.elements * share
        stored_elements += tensor.elements
        matrices += 1
    norms_per_layer = norms / geometry.layers
    inner = geometry.intermediate_size
    if experts and config.expert_intermediate_size:
        inner = used * config.expert_intermediate_size + config.shared_expert_intermediate_size
    latent = config.latent
    key_dim = latent.qk_nope_head_dim + latent.qk_rope_head_dim if latent else geometry.head_dim
    value_dim = latent.v_head_dim if latent else geometry.head_dim
    queries, keys = geometry.heads * key_dim, (geometry.heads if latent else geometry.kv_heads) * key_dim
    head_norms = any(_HEAD_NORM.search(name) for name in geometry.tensors)
    windowed = config.layer_types.count(SLIDING) if config.sliding_window else 0
    full = sum(kind.endswith("attention") and kind not in (SLIDING, _LINEAR) for kind in config.layer_types)
    return StepShape(
        key=f"{geometry.model_type}-{geometry.layers}x{geometry.hidden_size}-{geometry.parameters}",
        layers=geometry.layers,
        hidden=hidden,
        matrix_elements=round(matrix_elements),
        stored_elements=stored_elements,
        quantised_elements=sum(inputs * outputs for inputs, outputs in geometry.quantisable_shapes.values()),
        matrices=matrices,
        tensors=len(geometry.tensors),
        parameters=geometry.parameters,
        head_elements=geometry.vocab_size * hidden,
        # transformers' eager layers, reads and writes: an RMS norm 9 (to fp32, square, mean, scale, back, weight),
        # a residual sum 3; a rotation 8 (halves swapped and negated, two products, a sum); a gated activation 5.
        moved_numbers=round((9 * norms_per_layer + 2 * 3) * hidden)
        + (8 + (9 if head_norms else 0)) * (queries + keys)
        + 5 * inner,
        # Norms 6 each, sums and views 9, rotations 10, activation 2, attention 3; and each product.
        layer_operations=round(6 * norms_per_layer + 24 + (12 if head_norms else 0) + matrices / geometry.layers),
        attention_width=queries + geometry.heads * value_dim,
        heads=geometry.heads,
        full_layers=full,
        window_layers=windowed,
        window=config.sliding_window or 0,
        sparse=bool(experts),
    )
