"""Which files and devices a sealed process gets: what its work needs, by name and by where its links lead."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from engine.home import cache_root
from engine.seal.policy.caches import bytecode, library_caches, own_folder, scratch
from engine.seal.policy.devices import gpu_devices, touch_gpu
from engine.seal.policy.links import hops, with_links


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


def computing_places(run: str = "") -> Places:
    """For a process that loads torch: the GPUs, and where its libraries keep what they compiled, which is a folder for
    the run of each name. Without one for a process that reads nothing of anybody's."""
    touch_gpu()
    libraries = library_caches(run)
    for_all = () if run else (bytecode(),)
    write = _written((libraries, *for_all, scratch(), "/dev/shm"))
    with suppress(OSError):
        os.utime(libraries)  # in use: see clear_left
    return Places(write=write, devices=tuple(gpu_devices()), libraries=(str(libraries),))


@contextmanager
def passing_places() -> Iterator[Places]:
    """For a process that loads transformers and keeps nothing of it: importing that already makes the folder of what
    torch compiles, or fails where none can be made. This one goes with the process. Raises OSError."""
    with tempfile.TemporaryDirectory(prefix="finetui-", ignore_cleanup_errors=True) as libraries:
        yield Places(write=(libraries,), libraries=(libraries,))


def _written(paths: Iterable[Path | str]) -> tuple[str, ...]:
    """Those that are there, or could be made. With the links on the way."""
    found: list[str] = []
    for path in map(Path, paths):
        try:
            if path.is_relative_to(cache_root()):
                own_folder(path)
            elif not path.exists():
                path.mkdir(mode=0o700, parents=True, exist_ok=True)  # another process may make it just now
        except OSError:
            continue  # who writes there will be told why not
        found += map(str, hops(path))
    return _once(found)


def _once(paths: Iterable[str] | Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(paths))
