"""Paths as a person names them, with every link on the way and what lies behind."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path

from profiles.bounded_files import astray

# As the kernel's own limit for one path.
_MOST_LINKS = 40
# A folder that so many links of one place lead into is given whole: rules and mounts are one for each path, and a
# hundred thousand of them would take seconds and a part of the kernel's memory.
_MOST_FROM_ONE_FOLDER = 512
# In a model's or data folder that came from elsewhere, a link into these is no file of its own but a theft. Whoever
# means such a place names it.
_NEVER_FOLLOWED = (
    *("~/.ssh", "~/.gnupg", "~/.aws", "~/.azure", "~/.kube", "~/.docker", "~/.config", "~/.netrc", "~/.pgpass"),
    *("~/.password-store", "~/.mozilla", "~/.thunderbird", "~/.local/share/keyrings", "~/.bash_history"),
    *("~/.cache/huggingface/token", "~/.cache/huggingface/stored_tokens", "~/.git-credentials", "~/.pypirc"),
    *("/etc", "/proc", "/sys", "/dev", "/run", "/boot", "/root/.ssh"),
)


def with_links(path: Path | str) -> list[str]:
    """Every link on the way along `path`, where it ends, and the same of all links in the folder that this may be.

    What is not there is passed over, as is what may not be read."""
    found = dict.fromkeys(hops(path))
    start = list(found)[-1]
    # A data folder's links are its person's own, whatever they are named.
    is_model = os.path.lexists(start / "config.json")
    behind: dict[Path, None] = {}
    waiting, known = [start], set[Path]()
    while waiting:
        folder = waiting.pop()
        if folder in known:
            continue
        known.add(folder)
        for link in _links_below(folder):
            way = list(hops(link))
            end = way[-1]
            if os.path.lexists(end) and not _is_secret(end) and not (is_model and astray(link)):
                behind |= dict.fromkeys(each for each in way if not each.is_relative_to(folder))
                waiting.append(end)
    return [str(each) for each in (*found, *_gathered(behind)) if os.path.lexists(each)]


def hops(path: Path | str) -> Iterator[Path]:
    """Every link on the way along `path`, by where it lies itself, and at last the place that is meant."""
    path = Path(path).expanduser().absolute()
    at, left, links = Path(path.anchor), list(reversed(path.parts[1:])), 0
    while left:
        name = left.pop()
        if name == "..":
            at = at.parent
            continue
        at /= name
        if links < _MOST_LINKS and (target := _target(at)) is not None:
            links += 1
            yield at
            at = Path(target.anchor) if target.is_absolute() else at.parent
            left += reversed(target.parts[target.is_absolute() :])
    yield at


def _target(path: Path) -> Path | None:
    """Where a link leads; None for all else, and where the way there is closed to this user."""
    try:
        return path.readlink()
    except OSError:
        return None


def _links_below(folder: Path) -> Iterator[Path]:
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        yield Path(entry.path)
                    elif entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError:
            continue  # closed to this user, or no folder


def _is_secret(end: Path) -> bool:
    return any(end.is_relative_to(each) for each in _secret_places(os.environ.get("HOME", "")))


@lru_cache(maxsize=1)
def _secret_places(_home: str) -> tuple[Path, ...]:
    return tuple(Path(each).expanduser().resolve() for each in _NEVER_FOLLOWED)


def _gathered(paths: Collection[Path]) -> Iterator[Path]:
    counts = Counter(path.parent for path in paths)
    many = {folder for folder, count in counts.items() if count > _MOST_FROM_ONE_FOLDER}
    yield from many
    yield from (path for path in paths if path.parent not in many)
