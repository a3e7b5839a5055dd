"""The model step: choose a base model, seeing what each folder really is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from profiles.problem import Problem
from tui.format import bytes_text, compact_text, count_text
from tui.theme import Look
from tui.widgets.new_run.source import SourceStep
from tui.widgets.new_run.text import drawable, facts, problem_text

if TYPE_CHECKING:
    from profiles.geometry import Geometry, ModelReport

DTYPES = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16"}


class ModelStep(SourceStep):
    kind = "model"

    @property
    def empty_words(self) -> str:
        return "Choose a folder that holds a model: config.json, tokenizer and safetensors weights."

    def refusal(self, found: ModelReport) -> Problem | None:
        return found.problems[0] if found.problems else None

    def describe(self, found: ModelReport, width: int) -> Text:
        look = self.look
        parts = [problem_text(problem, look) for problem in found.problems]
        rows = shape_facts(found.geometry, look) if found.geometry else []
        rows.append(("tokenizer", found.tokenizer or "none"))
        rows.append(("chat template", "yes" if found.has_chat_template else "none"))
        parts.append(facts(rows, look, 15, width))
        parts += [Text(drawable(note, look), style=look.warn) for note in found.notes]
        return Text("\n\n").join(parts)


def shape_facts(geometry: Geometry, look: Look) -> list[tuple[str, str | Text]]:
    """A model's size and shape, as labels with what they name."""
    times = look.glyph("×", "x")
    shared = "" if geometry.kv_heads == geometry.heads else f", {geometry.kv_heads} for keys and values"
    dtype = DTYPES.get(geometry.dtype, geometry.dtype)
    return [
        ("parameters", compact_text(geometry.parameters)),
        ("weights", f"{bytes_text(geometry.weight_bytes)}{look.separator}{dtype}"),
        ("architecture", geometry.architecture),
        ("layers", f"{geometry.layers} {times} {count_text(geometry.hidden_size)} wide"),
        ("heads", f"{geometry.heads}{shared}"),
        ("vocabulary", f"{count_text(geometry.vocab_size)} tokens"),
        ("context", f"{count_text(geometry.context_length)} tokens" if geometry.context_length else "not said"),
    ]
