"""What can be told of a run's model and data before anything heavy starts, so that a fault is told at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.data.contents import Conversation
from engine.data.preview import DataPreview, preview
from engine.spec import RunSpec
from profiles.geometry import Geometry, inspect_model
from profiles.problem import Problem


@dataclass(frozen=True)
class Inputs:
    """A model that can be trained, and data as far as a first look tells."""

    geometry: Geometry
    previews: tuple[DataPreview, ...]
    """Of the training files, then of the held-out file if there is one."""

    def require_usable(self, max_rejected_share: float) -> None:
        """Raise Problem when more rows than this share cannot be used."""
        for found in self.previews:
            refusal = found.refusal(max_rejected_share)
            # Of a file that was not read to its end nobody knows yet how many rows are bad.
            if refusal is not None and (found.complete or not found.usable_rows):
                raise refusal


def check_inputs(spec: RunSpec) -> Inputs:
    """Look at the model and the data of `spec`. Raises Problem for what would stop the run before its first step."""
    found = read_inputs(spec.model.path, spec.data.paths, spec.data.held_out.path if spec.data.held_out else None)
    found.require_usable(spec.data.max_rejected_share)
    return found


def read_inputs(model: Path, train: Sequence[Path], held_out: Path | None) -> Inputs:
    """A model's folder and data files, read once. Raises Problem for a model or files that no setting makes usable."""
    report = inspect_model(model)
    if report.problems:
        raise report.problems[0]
    assert report.geometry is not None
    previews = tuple(preview(path) for path in (*train, *(() if held_out is None else (held_out,))))
    if not report.has_chat_template:
        for found in previews:
            _require_no_conversation(found)
    return Inputs(report.geometry, previews)


def _require_no_conversation(found: DataPreview) -> None:
    for sample in found.samples:
        if isinstance(sample.content, Conversation) and not sample.content.is_pair:
            raise Problem(
                f"{found.path}, line {sample.line}",
                "is a conversation, and the model has no chat template to write it with",
                "Use the instruction-tuned version of the model, or put its chat_template.jinja into the folder.",
            )
