"""Whether a run may go on from its checkpoint: asked before its engine starts, before its data is prepared, and again
once all is known that a checkpoint keeps."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from engine.run.checkpoints.manifest import list_checkpoints, saved_circumstances, step_of
from engine.run.circumstances.base_files import base_circumstances
from engine.run.circumstances.changed import Change, changed_since, changes, changes_text
from engine.run.circumstances.present import is_of_a_data_file, version_circumstances
from engine.run.circumstances.spec_fields import spec_circumstances
from engine.run.directory import RunDirectory
from engine.run.endings.adjusted import ANYWAY_VARIABLE
from engine.run.telemetry.reading import read_state

if TYPE_CHECKING:
    from engine.spec import RunSpec

Send = Callable[..., None]
"""Sends an event: its kind, and its fields by name."""


def changes_before_resume(run: RunDirectory) -> list[Change]:
    """What is known to have changed since the run's newest checkpoint before anything is started: settings, versions,
    the base's files and the data's, without what a person said to go on with already. None for a run without a
    checkpoint. Files that were not touched are not read; others are. Raises Problem for a damaged spec."""
    _, saved = _newest(run)
    if saved is None:
        return []
    spec = run.spec()
    found = changes(saved, _known_early(spec, base_circumstances(spec.model.path)))
    return [*_unaccepted(run, found), *_changed_files(run, spec, saved)]


def refuse_changes(run: RunDirectory) -> None:
    """Raises ChangedSince, which names them, where there are `changes_before_resume`."""
    if found := changes_before_resume(run):
        raise changed_since(run.name, _newest(run)[0], found)


def require_same_settings(run: RunDirectory, spec: RunSpec, base: Callable[[], Mapping[str, str]]) -> list[Change]:
    """Compare all that is known before the data is prepared with the newest checkpoint, if there is one; what a person
    said to go on with. `base` gives `base_circumstances`. Raises ChangedSince for what nobody did."""
    step, saved = _newest(run)
    if saved is None:
        return []
    found = changes(saved, _known_early(spec, base()))
    _refuse(run, step, found)
    return found


def require_same(
    run: RunDirectory, step: int, saved: Mapping[str, str], now: Mapping[str, str], send: Send
) -> list[Change]:
    """Compare `now` with what was `saved` with the checkpoint of `step`, which is to be gone on from, and journal what
    a person said to go on with; that. Raises ChangedSince for what nobody did.

    Data files that changed are refused when the data is prepared, and are no reason here: the run goes on with what was
    prepared of them.
    """
    if not saved:
        text = f"the checkpoint of step {step} does not say what it was made with: what changed since cannot be told"
        send("note", text=text)
        return []
    found = changes(saved, now)
    _refuse(run, step, [change for change in found if not is_of_a_data_file(change.field)])
    if new := _unaccepted(run, found):
        _record(step, new, send)
    return found


def goes_on_anyway() -> bool:
    """Whether a person said that this process's run is to go on whatever changed."""
    return bool(os.environ.get(ANYWAY_VARIABLE))


def _known_early(spec: RunSpec, base: Mapping[str, str]) -> dict[str, str]:
    return {**spec_circumstances(spec), **base, **version_circumstances(spec)}


def _newest(run: RunDirectory) -> tuple[int, dict[str, str] | None]:
    """Step and circumstances of the newest checkpoint whose manifest can be read: none, or ({}) without any."""
    for path in reversed(list_checkpoints(run.checkpoints)):
        if saved := saved_circumstances(path):
            return step_of(path) or 0, saved
    return 0, None


def _refuse(run: RunDirectory, step: int, found: Sequence[Change]) -> None:
    if not goes_on_anyway() and (refused := _unaccepted(run, found)):
        raise changed_since(run.name, step, refused)


def _unaccepted(run: RunDirectory, found: Sequence[Change]) -> list[Change]:
    """Those of the changes that the journal does not say were gone on with: nobody is asked twice."""
    if not found:
        return []
    accepted = [Change(**each) for each in read_state(run).continued]
    return [change for change in found if change not in accepted]


def _changed_files(run: RunDirectory, spec: RunSpec, saved: Mapping[str, str]) -> list[Change]:
    """The data's files that are not as when they were prepared, unless the run goes on with what was."""
    from engine.data.prepare.kept import changed_sources, is_accepted, read_kept  # here, since they come back to this

    kept = read_kept(run.data)
    sources = [section.source() for section in spec.data.sources]
    if kept is None or is_accepted(run.data) or len(sources) != len(kept.gathered):
        return []
    now = {}
    for number, sha256 in changed_sources(kept, sources).items():
        is_held_out = number > len(spec.data.train)
        if sha256 is not None:  # else it is gone, and is no longer needed
            now["data.held_out file" if is_held_out else f"data.train.{number} file"] = f"SHA-256 {sha256}"
    return changes(saved, now)


def _record(step: int, new: Sequence[Change], send: Send) -> None:
    """Have it put into the journal, and so beside what the run learnt from (see engine.run.evidence.keeping)."""
    text = f"went on from the checkpoint of step {step} though {changes_text(new)}"
    send("continued", step=step, changes=[change.as_dict() for change in new], text=text)
