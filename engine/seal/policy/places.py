"""Which files and devices a sealed process gets: what its work needs, by name and by where its links lead."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.fit.cache import cache_root
from engine.seal.policy.caches import bytecode, clear_left, learnt, library_caches, own_folder, scratch
from engine.seal.policy.devices import gpu_devices, touch_gpu
from engine.seal.policy.links import hops, with_links

if TYPE_CHECKING:
    from engine.run.directory import RunDirectory
    from engine.spec import RunSpec


@dataclass(frozen=True, slots=True)
class Places:
    """What one sealed process may use beside what every one may: its interpreter, its libraries and the system's."""

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    """The folder, also in `write`, in which libraries keep what they compile; none for a process that keeps nothing."""

    def __or__(self, other: Places) -> Places:
        return Places(
            _once(self.read + other.read),
            _once(self.write + other.write),
            _once(self.devices + other.devices),
            _once(self.libraries + other.libraries),
        )


def reading_places(paths: Iterable[Path | str], write: Iterable[Path | str] = ()) -> Places:
    """For a process that reads `paths`, with all that links in them lead to, and writes below `write`."""
    return Places(read=_once(each for path in paths for each in with_links(path)), write=_written(write))


def data_places(paths: Iterable[Path | str], write: Iterable[Path | str] = ()) -> Places:
    """For a process that reads rows or a tokenizer's files. What it makes of them is kept in a folder of `write`."""
    return reading_places(paths, (scratch(), *write))


def computing_places(run: RunDirectory | None = None) -> Places:
    """For a process that loads torch: the GPUs, and where its libraries keep what they compiled, which is a folder for
    each run. Without one for a process that reads nothing of anybody's."""
    touch_gpu()
    libraries = library_caches(run.name if run is not None else "")
    for_all = (bytecode(),) if run is None else ()
    write = _written((libraries, *for_all, scratch(), "/dev/shm"))
    with suppress(OSError):
        os.utime(libraries)  # in use: see clear_left
    return Places(write=write, devices=tuple(gpu_devices()), libraries=(str(libraries),))


def preparing_places(model: Path, data: Mapping[str, Any]) -> Places:
    """For a process that prepares data as a spec's data section says, given as JSON types. Raises Problem where
    pseudonyms are asked for and their key can neither be read nor made."""
    from engine.data.personal.key import key_path, pseudonym_key

    named = [data.get("held_out"), *_list(data.get("train")), *_list(data.get("benchmarks"))]
    read = [model, *(each.get("path") if isinstance(each, Mapping) else each for each in named)]
    template = str(data.get("chat_template", ""))
    if template.endswith(".jinja"):
        read.append(template)
    if data.get("personal") == "pseudonymise":
        pseudonym_key()  # made out here, since the folder that it lies in is closed within
        read.append(key_path())
    kept = (cache_root() / "prepared", cache_root() / "tokenizers")
    return data_places((each for each in read if isinstance(each, str | Path)), kept)


def training_places(run: RunDirectory, spec: RunSpec) -> Places:
    """For a run's worker. Raises what `preparing_places` raises.

    Of the run's folder it writes into those below it that are its own; of the rest, which is its supervisor's, it reads
    what it is asked and what it was before. Nothing else there is shown to it: who may open a file may also lock it. Of
    the cache it is given folder by folder too, none of which it can so replace by a link."""
    from engine.fit.memory_rows import measured_folder

    clear_left()
    prepared = preparing_places(spec.model.path, spec.data.model_dump(mode="json"))
    own = reading_places((run.spec_path, run.events_path), (*run.workers_own, *learnt(), measured_folder()))
    return prepared | own | computing_places(run)


def chat_places(run: RunDirectory) -> Places:
    """For the process that answers as a run's base and tuned model. It writes nothing of the run, and looks at the
    data only for how a question and an answer were put together."""
    return _result_places(run) | reading_places((run.spec().data.train[0].path,)) | computing_places(run)


def export_places(run: RunDirectory, folder: Path) -> Places:
    """For the process that writes a run's result into a folder below `folder`."""
    return _result_places(run) | reading_places((), write=(folder,)) | computing_places(run)


def _result_places(run: RunDirectory) -> Places:
    # What the run's worker wrote is not followed: a link in it leads wherever that process wanted.
    return reading_places((run.spec().model.path,)) | Places(read=(str(run.path),))


def _list(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _written(paths: Iterable[Path | str]) -> tuple[str, ...]:
    """Those that are there, or could be made. With the links on the way."""
    found: list[str] = []
    for path in map(Path, paths):
        try:
            if path.is_relative_to(cache_root()):
                own_folder(path)
            elif not path.exists():
                path.mkdir(mode=0o700, parents=True)
        except OSError:
            continue  # who writes there will be told why not
        found += map(str, hops(path))
    return _once(found)


def _once(paths: Iterable[str] | Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(paths))
