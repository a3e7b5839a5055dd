"""Which decoder layers look at everything before them and which only at a window, as transformers 5 decides it."""

from __future__ import annotations

from profiles.problem import Problem, printable
from profiles.shapes.config_fields import COPY_CONFIG, Fields

FULL = "full_attention"
SLIDING = "sliding_attention"
# Layers that compare no tokens with each other. A "hybrid" layer does both.
WITHOUT_ATTENTION = frozenset({"linear_attention", "mamba", "conv", "recurrent", "mlp", "moe"})

# Every n-th layer is full, the others slide, unless layer_types says otherwise.
_PATTERNS = {"gemma2": 2, "gemma3_text": 6, "vaultgemma": 2, "cohere2": 4, "olmo3": 4, "exaone4": 4, "gpt_oss": 2}
# sliding_window counts only with use_sliding_window, and then for layers each type chooses in its own way.
_SWITCHED = frozenset({"qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "smollm3"})
_WINDOW_LAYERS = 28  # transformers' default of max_window_layers
_NO_ROPE_INTERVAL = 4  # SmolLM3: every 4th layer has no rotary embedding, and those slide
# Every layer slides when there is a window.
_ALL_SLIDE = frozenset({"mistral", "mixtral", "ministral3", "phi3", "phimoe", "starcoder2", "qwen3_moe"})


def sliding_window(fields: Fields, model_type: str) -> int | None:
    """Tokens that a sliding layer looks back; None when no layer slides."""
    slides = model_type in _ALL_SLIDE or model_type in _PATTERNS or "layer_types" in fields.values
    if model_type in _SWITCHED:
        slides = fields.flag("use_sliding_window") is True
    return fields.optional_size("sliding_window") if slides else None


def layer_types(fields: Fields, model_type: str, layers: int) -> tuple[str, ...]:
    """One name per layer. Raises Problem for a `layer_types` that does not name one for each."""
    told = fields.values.get("layer_types")
    if told is not None:
        if not isinstance(told, list) or len(told) != layers or not all(isinstance(each, str) for each in told):
            found = f"{len(told)} entries" if isinstance(told, list) else printable(repr(told))
            raise Problem(f"{fields.path}, field layer_types", f"is {found}; one name per layer is needed", COPY_CONFIG)
        return tuple(told)
    if sliding_window(fields, model_type) is None:
        return (FULL,) * layers
    if model_type in _ALL_SLIDE:
        return (SLIDING,) * layers
    if model_type in ("qwen2", "qwen3"):
        first = _window_layers(fields)
        return tuple(SLIDING if layer >= first else FULL for layer in range(layers))
    if model_type == "qwen2_moe":
        end = _window_layers(fields)
        return tuple(SLIDING if layer < end and layer % 2 == 0 else FULL for layer in range(layers))
    if model_type == "smollm3":
        interval = fields.optional_size("no_rope_layer_interval") or _NO_ROPE_INTERVAL
        return tuple(FULL if (layer + 1) % interval else SLIDING for layer in range(layers))
    if model_type in _PATTERNS:
        told = fields.get("sliding_window_pattern")  # a number, or letters ("LLLG") of which the last is full
        pattern = len(told) if isinstance(told, str) and told else fields.optional_size("sliding_window_pattern")
        pattern = pattern or _PATTERNS[model_type]
        return tuple(FULL if (layer + 1) % pattern == 0 else SLIDING for layer in range(layers))
    return (FULL,) * layers


def _window_layers(fields: Fields) -> int:
    return fields.count("max_window_layers") if "max_window_layers" in fields.values else _WINDOW_LAYERS
