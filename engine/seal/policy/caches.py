"""Where sealed processes keep what libraries would keep in the home folder, which is closed to them."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path

from engine.home import cache_root

# Of a run that takes weeks, what lies untouched for so long is still not in use.
_LEFT_SECONDS = 30 * 86400


def library_caches(run: str = "") -> Path:
    """What libraries compiled or unpacked for the run of this name, its chat and its export; without a name, for
    processes that read nothing of anybody's. Only sealed processes write here, and only they run what lies here: what a
    hostile one left would else be run by those of another run."""
    return cache_root() / "libraries" / (f"runs/{run}" if run else "shared")


def bytecode() -> Path:
    """What Python compiles of modules, where it cannot be kept beside them. All sealed processes run it, and none that
    reads anything of anybody's writes it."""
    return cache_root() / "libraries" / "bytecode"


def scratch() -> Path:
    """Temporary files. Not /tmp, which is everybody's where the kernel gives no private one, and memory where it
    does."""
    return cache_root() / "scratch"


def own_folder(path: Path) -> None:
    """Make `path`, a folder of the cache. A link in its place, which no process of ours makes, would open to a sealed
    one whatever it leads to, and gives way to a folder. Raises OSError."""
    at = cache_root()
    for part in path.relative_to(at).parts:
        at /= part
        if at.is_symlink():
            at.unlink(missing_ok=True)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def clear_left() -> None:
    """Remove, a month after, temporary files of processes that were killed, and what libraries compiled for a run that
    began no more since."""
    for folder in (scratch(), library_caches("any").parent):
        with suppress(OSError):
            own_folder(folder)
            for path in folder.iterdir():
                with suppress(FileNotFoundError):  # processes that work make and remove files here all the time
                    if path.lstat().st_mtime >= time.time() - _LEFT_SECONDS:
                        continue
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        path.unlink()
