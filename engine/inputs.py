"""What can be told of a run's model and data before anything heavy starts, so that a fault is told at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.data.contents import Conversation, Feedback, Kind, Preference
from engine.data.preview import DataPreview, Sample, preview
from engine.data.rows import shown
from engine.data.shapes import KIND_WORDS, goes_with, objective_for
from engine.data.shapes.parts import KINDS_OF_OBJECTIVE
from engine.data.source import Shape, Source
from engine.spec import RunSpec, SourceSection
from profiles.bounded_files import read_bytes
from profiles.geometry import Geometry, inspect_model
from profiles.problem import Problem, printable
from profiles.settings import Objective

Data = Path | Source | SourceSection
"""What is learnt from, as a path alone or with how to read it."""

# Added tokens stand before the vocabulary; those of the largest models take less than 1 MB.
_TOKENIZER_HEAD_BYTES = 4 << 20
_LARGEST_TEMPLATE_BYTES = 1 << 24
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
_TOOL_CALLS = "tool_calls"
"""What a message that calls tools has, and a template that writes such calls reads."""


@dataclass(frozen=True)
class KnownChoice:
    """A chat template known by name that is to be taken rather than the model's own."""

    name: str
    lack: str
    """What the model does not have; completes the sentence "the model ..."."""
    reason: str
    """Why this one."""


@dataclass(frozen=True)
class Inputs:
    """A model that can be trained, and data as far as a first look tells."""

    geometry: Geometry
    previews: tuple[DataPreview, ...]
    """Of the training files, then of the held-out file if there is one."""
    chat_template: KnownChoice | None = None
    """Where the model's own template does not do for these conversations, or there is none: a known one."""

    @property
    def kind(self) -> Kind | None:
        """What the data hold; None where that is not clear or there are none."""
        return next((found.kind for found in self.previews if found.kind), None)

    def require_usable(self, max_rejected_share: float) -> None:
        """Raise Problem when it is not clear what the columns are, or more rows than this share cannot be used."""
        for found in self.previews:
            refusal = found.refusal(max_rejected_share)
            # Of a file that was not read to its end nobody knows yet how many rows are bad.
            if refusal is not None and (found.unclear or found.complete or not found.usable_rows):
                raise refusal

    def require_objective(self, objective: Objective) -> None:
        """Raise Problem when `objective` (as objective.kind) cannot learn from these data."""
        kind = self.kind
        if kind is not None and kind not in KINDS_OF_OBJECTIVE[objective]:
            learns = " or ".join(KIND_WORDS[each] for each in KINDS_OF_OBJECTIVE[objective])
            raise Problem(
                "objective.kind",
                f"is {objective}, which learns from {learns}; {shown(self.previews[0].path)} holds {KIND_WORDS[kind]}",
                f'Set objective.kind to "{objective_for(kind)}", or say with shape and columns how to read the data.',
            )


def section_of(data: Data) -> SourceSection:
    """`data` as it stands in a spec; what is said of nothing stays unsaid."""
    if isinstance(data, SourceSection):
        return data
    if isinstance(data, Path):
        return SourceSection(path=data)
    fields = {name: getattr(data, name) for name in SourceSection.model_fields if hasattr(data, name)}
    return SourceSection(**{**fields, "columns": dict(data.columns)})


def source_at(text: str | Path, shape: Shape = "auto", columns: Mapping[str, str] | None = None) -> Source:
    """The source that a person named on a command line: ~ is their home, and "-" is what comes in on stdin, which is
    kept in the cache so that it can be read again. Raises Problem when stdin cannot be kept."""
    if str(text) == "-":
        import sys

        from engine.data.files import spool_stdin

        path = spool_stdin(sys.stdin.buffer)
    else:
        path = Path(text).expanduser().absolute()
    return Source(path, shape=shape, columns=dict(columns or {}))


def columns_said(assignments: Sequence[str]) -> dict[str, str]:
    """Columns by part, of assignments as on a command line: "question=ask". Raises Problem for what is none."""
    columns: dict[str, str] = {}
    for assignment in assignments:
        part, equals, column = assignment.partition("=")
        if not equals or not part.strip() or not column.strip():
            raise Problem(printable(assignment), "is not PART=COLUMN", "Write it as question=ask, for example.")
        columns[part.strip()] = column.strip()
    return columns


def check_inputs(spec: RunSpec) -> Inputs:
    """Look at the model and the data of `spec`. Raises Problem for what would stop the run before its first step."""
    found = read_inputs(spec.model.path, spec.data.train, spec.data.held_out)
    found.require_usable(spec.data.max_rejected_share)
    found.require_objective(spec.objective.kind)
    if found.chat_template is not None and spec.data.chat_template == "model":
        known = found.chat_template
        raise Problem(
            str(spec.model.path),
            f"{known.lack}, and the data are conversations that need one",
            f'Set data.chat_template = "{known.name}" ({known.reason}), or use a version of the model that has one.',
        )
    return found


def read_inputs(model: Path, train: Sequence[Data], held_out: Data | None) -> Inputs:
    """A model's folder and data, read once. Raises Problem for a model or data that no setting makes usable."""
    report = inspect_model(model)
    if report.problems:
        raise report.problems[0]
    assert report.geometry is not None
    previews = read_data(train, held_out)
    return Inputs(report.geometry, previews, _known_template(model, report.has_chat_template, previews))


def read_data(train: Sequence[Data], held_out: Data | None) -> tuple[DataPreview, ...]:
    """A first look at what is learnt from, then at what is held out. Raises Problem for data that cannot be read or do
    not go together."""
    data = (*train, *(() if held_out is None else (held_out,)))
    previews = tuple(preview(section_of(each).source()) for each in data)
    known = [found for found in previews if found.kind]
    for other in known[1:]:
        first = known[0]
        assert first.kind and other.kind
        if not goes_with(first.kind, other.kind):
            raise Problem(
                shown(other.path),
                f"holds {KIND_WORDS[other.kind]}, while {shown(first.path)} holds {KIND_WORDS[first.kind]}",
                "Learn from one kind in one run, or say with shape and columns how to read one of the two.",
            )
    return previews


def suggested_template(model: Path) -> tuple[str, str]:
    """The known chat template that fits a model without one, and why."""
    from engine.data.tokens.templates import suggest_template

    return suggest_template(frozenset(_special_tokens(model)))


def _known_template(model: Path, has_template: bool, previews: Sequence[DataPreview]) -> KnownChoice | None:
    samples = list(_samples(previews))
    if not has_template:
        if not any(map(_needs_template, samples)):
            return None
        name, reason = suggested_template(model)
        lack = "has no chat template of its own"
    else:
        # A model keeps the template it was taught with as long as that can write the most of the data.
        if 2 * sum(map(_calls_tools, samples)) <= len(samples) or _writes_tool_calls(model):
            return None
        name, reason = suggested_template(model)
        lack = "has a chat template that leaves tool calls out"
    from engine.data.tokens.templates import KNOWN_TEMPLATES

    if any(map(_calls_tools, samples)) and _TOOL_CALLS not in KNOWN_TEMPLATES[name].text:
        name, reason = "chatml", "it writes the tools and the calls"
    return KnownChoice(name, lack, reason)


def _calls_tools(sample: Sample) -> bool:
    content = sample.content
    return isinstance(content, Conversation) and any(_TOOL_CALLS in each.more for each in content.messages)


def _writes_tool_calls(model: Path) -> bool:
    """Whether the chat templates in a folder have to do with tool calls; True where they cannot be read."""
    paths = [model / name for name in _TEMPLATE_FILES]
    paths += sorted((model / "additional_chat_templates").glob("*.jinja"))
    try:
        found = [path for path in paths if path.is_file()]
        return any(
            path.stat().st_size > _LARGEST_TEMPLATE_BYTES or _TOOL_CALLS.encode() in path.read_bytes() for path in found
        )
    except OSError:
        return True


def _samples(previews: Sequence[DataPreview]) -> Iterator[Sample]:
    return (sample for found in previews for sample in found.samples)


def _needs_template(sample: Sample) -> bool:
    """Whether a row is a conversation that only a chat template can write; one question and answer need none."""
    match sample.content:
        case Conversation() as conversation:
            return not conversation.is_pair
        case Preference(chosen=conversation) | Feedback(conversation=conversation):
            return not conversation.is_pair
    return False


def _special_tokens(model: Path) -> Iterator[str]:
    """Of the folder's tokenizer.json; none where it cannot be read, which is told of when the tokenizer is loaded."""
    try:
        head = read_bytes(model / "tokenizer.json", _TOKENIZER_HEAD_BYTES).decode(errors="replace")
        begins = head.index('"added_tokens"')
        added, _ = json.JSONDecoder().raw_decode(head, head.index("[", begins))
    except (Problem, ValueError, RecursionError):
        return
    for token in added:
        if isinstance(token, dict) and isinstance(token.get("content"), str):
            yield token["content"]
