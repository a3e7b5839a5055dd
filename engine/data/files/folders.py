"""Which files of a folder are its data, and which are left out and why."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.data.files.chunk import FoundFormat
from engine.data.files.layouts import layout_of
from engine.data.files.opening import kind_name, mode_of, unreadable
from engine.data.files.stored import StoredFile
from engine.data.rows import shown
from engine.data.source import Source
from profiles.problem import Problem, printable

# Names alone of more files than this take more memory than reading any of them.
_MOST_FILES = 200_000
_NAMES_TOLD = 3
# What lies beside the data in many folders and is not data, whatever format it has.
_BESIDE = frozenset(
    {
        "readme", "license", "licence", "copying", "notice", "changelog", "contributing", "citation", "authors",
        "dataset_info", "dataset_infos", "dataset_dict", "state", "package", "package-lock", "makefile",
    }
)  # fmt: skip
_FAMILIES: dict[FoundFormat, str] = {
    "jsonl": "JSON",
    "json": "JSON",
    "csv": "CSV",
    "parquet": "Parquet",
    "arrow": "Arrow",
    "text": "text",
    "markdown": "text",
}
"""Formats whose rows have the same form, so that a folder may hold both."""
_OF_SPLITS = ("test", "valid", "val", "validation", "dev", "eval")


@dataclass(frozen=True, slots=True)
class Members:
    """The files of a source, in the order they are read in."""

    names: tuple[str, ...]
    """Paths within the folder; "" alone where the source is a file."""
    size_bytes: int
    notes: tuple[str, ...] = ()


def files_in(source: Source) -> Members:
    """The data files in a folder and those under it, sorted by path. Raises Problem when there are none, when they
    are of several kinds, and when one of them may not be read."""
    notes: Counter[str] = Counter()
    names = sorted(_walked(source.path, notes), key=lambda name: name.split("/"))
    sizes: dict[str, int] = {}
    families: dict[str, list[str]] = {}
    beside: list[str] = []
    refused: list[Problem] = []
    for name in names:
        path = source.path / name
        mode = mode_of(path)
        if not stat.S_ISREG(mode):
            notes[f"what is {kind_name(mode)}"] += 1
            continue
        sizes[name] = path.stat().st_size
        if not sizes[name]:
            notes["empty files"] += 1
        elif _is_beside(path):
            beside.append(name)
        else:
            family = _family_of(path, source)
            if isinstance(family, Problem):
                refused.append(family)
                notes[f"{path.suffix.lower() or 'nameless'} files, which hold no rows"] += 1
            else:
                families.setdefault(family, []).append(name)
    if not families and beside:
        families = {"text": beside}  # a folder of nothing but read-mes was meant as it is
        beside = []
    if not families:
        if refused:
            raise Problem(shown(source.path), f"holds no data file: the first {refused[0].what}", refused[0].fix)
        raise Problem(shown(source.path), "is a folder without data files", "Give a folder with at least one.")
    chosen = _chosen(source, families, notes)
    if beside:
        notes["files beside the data, such as " + printable(beside[0], 60)] = len(beside)
    left_out = [f"left out of the folder: {count:,} × {what}" for what, count in sorted(notes.items())]
    return Members(tuple(chosen), sum(sizes[name] for name in chosen), (*left_out, *_on_splits(chosen)))


def _walked(folder: Path, notes: Counter[str]) -> Iterator[str]:
    """Paths within the folder of all that is no folder. Links to folders are not followed, so that none is a loop."""
    count = 0
    for place, folders, files in os.walk(folder, onerror=_refuse):
        here = Path(place)
        for name in list(folders):
            if name.startswith("."):
                notes["hidden folders"] += 1
                folders.remove(name)
            elif (here / name).is_symlink():
                notes["links to folders"] += 1
                folders.remove(name)
        for name in files:
            count += 1
            if count > _MOST_FILES:
                raise Problem(
                    shown(folder), f"holds more than {_MOST_FILES:,} files", "Put them into fewer files, such as JSONL."
                )
            if name.startswith("."):
                notes["hidden files"] += 1
            else:
                yield str((here / name).relative_to(folder))


def _refuse(error: OSError) -> None:
    raise unreadable(shown(Path(error.filename)), error)


def _is_beside(path: Path) -> bool:
    return path.name.split(".")[0].lower() in _BESIDE


def _family_of(path: Path, source: Source) -> str | Problem:
    """What kind of data a file holds, or why it holds none. Raises Problem when it may not be read."""
    stored = StoredFile(path)
    try:
        return _FAMILIES[layout_of(stored, source)[0].format]
    except Problem as problem:
        return problem
    finally:
        stored.close()


def _chosen(source: Source, families: dict[str, list[str]], notes: Counter[str]) -> list[str]:
    """The files of the one kind that is read: tables and lists of rows before loose text."""
    kinds = [kind for kind in families if kind != "text"] or list(families)
    if len(kinds) > 1:
        told = ", ".join(f"{len(families[kind]):,} × {kind} ({printable(families[kind][0], 60)})" for kind in kinds)
        raise Problem(
            shown(source.path), f"holds data of several kinds: {told}", "Give each as a source of its own, by its path."
        )
    for kind, names in families.items():
        if kind != kinds[0]:
            notes[f"text files, such as {printable(names[0], 60)}"] = len(names)
    return families[kinds[0]]


def _on_splits(names: list[str]) -> list[str]:
    """A word on files that are probably meant to be held out."""
    found = [name for name in names if any(word in _OF_SPLITS for word in _words(name))]
    if not found or len(found) == len(names):
        return []
    told = ", ".join(printable(name, 60) for name in found[:_NAMES_TOLD])
    return [f"some files look held out by their names, and are read with the others: {told}"]


def _words(name: str) -> list[str]:
    return "".join(each if each.isalnum() else " " for each in name.lower()).split()
