"""What the New run screen asks of the engine, in one value, so that tests can give it something else.

All of these block (they read files, probe devices or start a process) and are called from threads only. They
import what they need when called: the app shows its first text before any of it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.spec import RunSpec
from tui.widgets.data.sources import DataSources
from tui.widgets.new_run.draft import Draft, kept_reasons
from tui.widgets.new_run.places import Place, former_specs, found_data, model_places
from tui.widgets.plan.sources import PlanSources

if TYPE_CHECKING:
    from engine.data.preview import DataPreview
    from engine.propose import Gathered, Proposal
    from engine.run.directory import RunDirectory
    from engine.run.surviving.session_limits import Caution
    from engine.run.waiting.room import Room
    from engine.seal.ability import Ability
    from profiles.geometry import ModelReport
    from profiles.planner import Plan


def _inspect_model(path: Path) -> ModelReport:
    from profiles.geometry import inspect_model

    return inspect_model(path)


def _preview(path: Path) -> DataPreview:
    from engine.data.preview import preview

    return preview(path)


def _gather(draft: Draft) -> Gathered:
    from engine.propose import gather
    from engine.run.directory import runs_root
    from profiles.hardware import probe

    assert draft.model is not None and draft.sources, "the plan step opens after a model and data were chosen"
    return gather(draft.model, draft.sources, draft.held_out_source, probe(runs_root()))


def _plan_for(draft: Draft) -> Plan:
    from engine.propose import plan_for

    assert draft.gathered is not None
    return plan_for(draft.gathered, draft.nested_asked)


def _propose(draft: Draft) -> Proposal:
    from engine.propose import propose_from

    assert draft.gathered is not None, "the plan step read the model and the data"
    if draft.moved is None:
        return propose_from(draft.gathered, draft.nested_asked, draft.name, draft.profile)
    proposal = propose_from(draft.gathered, draft.nested_asked, draft.name)
    reasons = kept_reasons(proposal.profile.values, proposal.reasons, draft.moved)
    return replace(proposal, reasons=reasons)


def _room(spec: RunSpec) -> Room:
    from engine.run.waiting.room import room_for

    return room_for(spec)


def _cautions() -> Sequence[Caution]:
    from engine.run.surviving.session_limits import cautions_before_start

    return cautions_before_start()


def _ability() -> Ability:
    from tui.source import seal_ability

    return seal_ability()


def _launch(spec: RunSpec, wait: bool) -> RunDirectory:
    from engine.run.launch import launch

    return launch(spec, wait=wait)


@dataclass(frozen=True, slots=True)
class Sources:
    inspect_model: Callable[[Path], ModelReport] = _inspect_model
    """What a folder is as a model, with its problems."""
    preview: Callable[[Path], DataPreview] = _preview
    """What a data file holds. Raises Problem."""
    gather: Callable[[Draft], Gathered] = _gather
    """Read a draft's model, data and machine, once. Raises Problem."""
    plan_for: Callable[[Draft], Plan] = _plan_for
    """The ranked profiles for what was gathered, around the draft's changes. Raises Problem."""
    propose: Callable[[Draft], Proposal] = _propose
    """Every value, with its reason and the predicted memory, from what was gathered. Raises Problem."""
    room: Callable[[RunSpec], Room] = _room
    """Whether the memory that a run needs is free at this moment, and who holds it. Raises Problem."""
    cautions: Callable[[], Sequence[Caution]] = _cautions
    """What would end a run that is started now, such as logging out."""
    ability: Callable[[], Ability] = _ability
    """What this machine can hold of a seal."""
    launch: Callable[[RunSpec, bool], RunDirectory] = _launch
    """Start the run detached, or let it wait in the queue until its memory is free. Raises Problem."""
    model_places: Callable[[], Sequence[Place]] = lambda: model_places(former_specs())
    """Folders to choose a model from."""
    data_places: Callable[[], Sequence[Place]] = found_data
    """Files to choose data from."""
    plan: PlanSources = field(default_factory=PlanSources)
    """What the plan asks besides."""
    data: DataSources = field(default_factory=DataSources)
    """What the Data screen asks, when a file is looked into."""
