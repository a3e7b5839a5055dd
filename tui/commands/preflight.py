"""What can be told of a spec's inputs before any engine starts, so that a fault is told at once.

`engine.propose` asks the same of what it makes a spec from.
"""

from __future__ import annotations

from engine.data.preview import DataPreview, preview
from engine.data.shapes import Conversation
from engine.spec import RunSpec
from profiles.geometry import Geometry, inspect_model
from profiles.problem import Problem


def check_inputs(spec: RunSpec) -> Geometry:
    """The model's geometry. Raises Problem for the first fault of the model's folder or of a data file."""
    report = inspect_model(spec.model.path)
    if report.problems:
        raise report.problems[0]
    held_out = () if spec.data.held_out is None else (spec.data.held_out,)
    for path in (*spec.data.train, *held_out):
        found = preview(path)
        refusal = found.refusal(spec.data.max_rejected_share)
        # Of a file that was not read to its end nobody knows yet how many rows are bad.
        if refusal is not None and (found.complete or not found.usable_rows):
            raise refusal
        if not report.has_chat_template:
            _require_no_conversation(found)
    assert report.geometry is not None
    return report.geometry


def _require_no_conversation(found: DataPreview) -> None:
    for sample in found.samples:
        if isinstance(sample.content, Conversation) and not sample.content.is_pair:
            raise Problem(
                f"{found.path}, line {sample.line}",
                "is a conversation, and the model has no chat template to write it with",
                "Use the instruction-tuned version of the model, or put its chat_template.jinja into the folder.",
            )
