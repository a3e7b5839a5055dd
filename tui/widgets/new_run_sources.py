"""What the New run screen asks of the engine, in one value, so that tests can give it something else.

All of these block (they read files, probe devices or start a process) and are called from threads only. They
import what they need when called: the app shows its first text before any of it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.spec import RunSpec
from profiles.problem import Problem
from tui.widgets.new_run_draft import Draft
from tui.widgets.new_run_places import Place, data_places, model_places

if TYPE_CHECKING:
    from engine.data.preview import DataPreview
    from engine.propose import Proposal
    from engine.run.directory import RunDirectory
    from profiles.geometry import ModelReport

# Former runs whose model and data the pickers offer; older ones are found by their path.
FORMER_RUNS = 30


def _inspect_model(path: Path) -> ModelReport:
    from profiles.geometry import inspect_model

    return inspect_model(path)


def _preview(path: Path) -> DataPreview:
    from engine.data.preview import preview

    return preview(path)


def _propose(draft: Draft) -> Proposal:
    from engine.propose import propose
    from engine.run.directory import runs_root
    from profiles.hardware import probe

    assert draft.model is not None and draft.train, "the Settings step opens after a model and data were chosen"
    hardware = probe(runs_root())
    return propose(draft.model, draft.train, draft.held_out, hardware, draft.nested_overrides, draft.name)


def _launch(spec: RunSpec) -> RunDirectory:
    from engine.run.launch import launch

    return launch(spec)


def _former_specs() -> Sequence[RunSpec]:
    """Specs of former runs, newest first."""
    from engine.run.directory import list_runs

    specs = []
    for run in list_runs()[:FORMER_RUNS]:
        try:
            specs.append(run.spec())
        except Problem:
            continue  # a damaged run folder is told of on Home; here it only has nothing to offer
    return specs


@dataclass(frozen=True, slots=True)
class Sources:
    inspect_model: Callable[[Path], ModelReport] = _inspect_model
    """What a folder is as a model, with its problems."""
    preview: Callable[[Path], DataPreview] = _preview
    """What a data file holds. Raises Problem."""
    propose: Callable[[Draft], Proposal] = _propose
    """Every value, with its reason and the predicted memory. Raises Problem."""
    launch: Callable[[RunSpec], RunDirectory] = _launch
    """Start the run detached. Raises Problem."""
    model_places: Callable[[], Sequence[Place]] = lambda: model_places(_former_specs())
    """Folders to choose a model from."""
    data_places: Callable[[], Sequence[Place]] = lambda: data_places(_former_specs())
    """Files to choose data from."""
