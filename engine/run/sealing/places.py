"""What each kind of process that works on a run is given of the run's folder, beside what it computes with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engine.data.prepare.sealed_places import preparing_places
from engine.home import cache_root
from engine.run.directory import RunDirectory
from engine.seal.policy.caches import clear_left
from engine.seal.policy.places import Places, computing_places, reading_places

if TYPE_CHECKING:
    from engine.spec import RunSpec

# Of the cache: what was found out of models, disks and devices (see engine.fit.cache), which a trainer adds to.
_LEARNT = ("contents", "disks", "rates", "replay", "shapes")


def training_places(run: RunDirectory, spec: RunSpec) -> Places:
    """For a run's worker. Raises what `preparing_places` raises.

    Of the run's folder it writes into those below it that are its own; of the rest, which is its supervisor's, it reads
    what it is asked and what it was before. Nothing else there is shown to it: who may open a file may also lock it. Of
    the cache it is given folder by folder too, none of which it can so replace by a link."""
    from engine.fit.memory_rows import measured_folder  # here, since chats and exports are started without

    clear_left()
    learnt = (cache_root() / name for name in _LEARNT)
    prepared = preparing_places(spec.model.path, spec.data.model_dump(mode="json"))
    own = reading_places((run.spec_path, run.events_path), (*run.workers_own, *learnt, measured_folder()))
    return prepared | own | computing_places(run.name)


def chat_places(run: RunDirectory) -> Places:
    """For the process that answers as a run's base and tuned model. It writes nothing of the run, and looks at the
    data only for how a question and an answer were put together."""
    return _result_places(run) | reading_places((run.spec().data.train[0].path,)) | computing_places(run.name)


def export_places(run: RunDirectory, folder: Path) -> Places:
    """For the process that writes a run's result into a folder below `folder`."""
    return _result_places(run) | reading_places((), write=(folder,)) | computing_places(run.name)


def _result_places(run: RunDirectory) -> Places:
    # What the run's worker wrote is not followed: a link in it leads wherever that process wanted.
    return reading_places((run.spec().model.path,)) | Places(read=(str(run.path),))
