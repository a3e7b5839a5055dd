"""Paths as a person names them, with every link on the way and what lies behind."""

from __future__ import annotations

import os
import pwd
import stat
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from profiles.bounded_files import astray

# As the kernel's own limit for one path.
_MOST_LINKS = 40
# Where links lead to more places than so many, or to more in one folder, the folders that those lie in are given whole:
# rules and mounts are one for each place, and of 20,000 a start took 3 s and a report of it 1.4 MB.
_MOST_PLACES = 512
# In a model's or data folder that came from elsewhere, a link into these is no file of its own but a theft. Whoever
# means such a place names it.
_NEVER_FOLLOWED = (
    *("~/.ssh", "~/.gnupg", "~/.aws", "~/.azure", "~/.kube", "~/.docker", "~/.config", "~/.netrc", "~/.pgpass"),
    *("~/.password-store", "~/.mozilla", "~/.thunderbird", "~/.local/share/keyrings", "~/.bash_history"),
    *("~/.cache/huggingface/token", "~/.cache/huggingface/stored_tokens", "~/.git-credentials", "~/.pypirc"),
    *("/etc", "/proc", "/sys", "/dev", "/run", "/boot", "/root/.ssh"),
)
# Of those, where disks are mounted that a person plugged in, and where what is worked with lies in memory.
_FOLLOWED_ALL_THE_SAME = frozenset(("/run/media", "/run/mount", "/dev/shm"))


def with_links(path: Path | str) -> list[str]:
    """Every link on the way along `path`, where it ends, and the same of all links in the folder that this may be.

    What is not there is passed over, as is what may not be read."""
    found = dict.fromkeys(map(str, hops(path)))
    start = list(found)[-1]
    # A data folder's links are its person's own, whatever they are named.
    is_model = os.path.lexists(os.path.join(start, "config.json"))
    behind: dict[str, None] = {}
    waiting, known = [start], set[str]()
    ways = _Ways()
    while waiting:
        folder = waiting.pop()
        if folder in known:
            continue
        known.add(folder)
        within = folder.rstrip("/") + "/"
        for link in _links_below(folder):
            way = ways.along(link)
            end = way[-1]
            if (mode := _mode(end)) and not is_secret(end) and not (is_model and astray(Path(link))):
                behind |= dict.fromkeys(each for each in way if each != folder and not each.startswith(within))
                if stat.S_ISDIR(mode):
                    waiting.append(end)
    return [each for each in (*found, *_gathered(behind)) if os.path.lexists(each)]


def hops(path: Path | str) -> Iterator[Path]:
    """Every link on the way along `path`, by where it lies itself, and at last the place that is meant.

    Where a way goes into a folder and back out of it (project/../data) it comes as it is named too, since the kernel
    must find that folder."""
    path = Path(os.path.expanduser(path)).absolute()
    if _goes_back(path.parts):
        yield path
    yield from _walk(path, back=True)


def _walk(path: Path, back: bool) -> Iterator[Path]:
    """`back`: with those targets of links that go into a folder and out of it, followed by what is left of `path`."""
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
            parts = Path(target).parts
            at = Path("/") if os.path.isabs(target) else at.parent
            if back and _goes_back(parts):
                yield at.joinpath(*parts, *reversed(left))
            left += reversed(parts[os.path.isabs(target) :])
    yield at


def _goes_back(parts: Sequence[str]) -> bool:
    return any(part == ".." != before for before, part in pairwise(parts))


def holds_secrets(folder: str) -> bool:
    """Whether a place into which no link is followed lies in `folder`, named without a link: some lie in the home
    folder, so in the root too, and in ~/.local."""
    return folder in _above_secrets(_homes(os.environ.get("HOME")))


def is_secret(path: str) -> bool:
    """Whether `path`, named without a link, is or lies in a place into which no link is followed."""
    if _is_within(os.path.dirname(path), _FOLLOWED_ALL_THE_SAME):
        return False
    secrets = _secret_places(_homes(os.environ.get("HOME")))
    return path in secrets or _is_within(os.path.dirname(path), secrets)


class _Ways:
    """`hops` of many links, which lead into few folders: the way to each of those is gone once."""

    def __init__(self) -> None:
        self._known: dict[str, list[str]] = {}

    def along(self, link: str) -> list[str]:
        """`link` lies in a folder on the way to which there is no other."""
        target = _target(link) or ""
        folder, name = os.path.split(os.path.join(os.path.dirname(link), target))
        if name in ("", ".", "..") or _goes_back(target.split("/")):
            return [*map(str, hops(link))]
        if folder not in self._known:
            self._known[folder] = [*map(str, _walk(Path(folder), back=False))]
        *way, last = self._known[folder]
        end = os.path.join(last, name)
        return [link, *way, *([end] if _target(end) is None else map(str, hops(end)))]


def _target(path: Path | str) -> str | None:
    """Where a link leads; None for all else, and where the way there is closed to this user."""
    try:
        return os.readlink(path)
    except OSError:
        return None


def _mode(path: str) -> int:
    """0 where there is nothing, or the way there is closed to this user."""
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0


def _links_below(folder: str) -> Iterator[str]:
    waiting = [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        yield entry.path
                    elif entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError:
            continue  # closed to this user, or no folder


@lru_cache(maxsize=1024)
def _is_within(folder: str, places: frozenset[str]) -> bool:
    return folder in places or any(str(each) in places for each in Path(folder).parents)


@lru_cache(maxsize=1)
def _homes(variable: str | None) -> tuple[str, ...]:
    """This user's home folder, by the variable and by the system's list of users: none where neither names one, as in
    a container that was started with a number for a user."""
    try:
        named = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        named = ""
    return tuple(dict.fromkeys(os.path.realpath(each) for each in (variable, named) if each and os.path.isabs(each)))


@lru_cache(maxsize=1)
def _secret_places(homes: tuple[str, ...]) -> frozenset[str]:
    absolute = [each for each in _NEVER_FOLLOWED if each.startswith("/")]
    of_homes = [home + each[1:] for each in _NEVER_FOLLOWED if each.startswith("~") for home in homes]
    return frozenset(os.path.realpath(each) for each in (*absolute, *of_homes))


def _gathered(paths: Collection[str]) -> Collection[str]:
    """`paths`, or the folders that they lie in where they are too many."""
    counts = Counter(map(os.path.dirname, paths))
    many = {folder for folder, count in counts.items() if count > _MOST_PLACES and not holds_secrets(folder)}
    gathered = dict.fromkeys(folder if (folder := os.path.dirname(path)) in many else path for path in paths)
    while len(gathered) > _MOST_PLACES:
        low = [path for path in gathered if not holds_secrets(os.path.dirname(path))]
        if not low:
            break
        deepest = max(map(_depth, low))
        above = {path: os.path.dirname(path) for path in low if _depth(path) == deepest}
        gathered = dict.fromkeys(above.get(path, path) for path in gathered)
    return gathered


def _depth(path: str) -> int:
    return path.count("/")


@lru_cache(maxsize=1)
def _above_secrets(homes: tuple[str, ...]) -> frozenset[str]:
    return frozenset(str(each) for secret in _secret_places(homes) for each in Path(secret).parents)
