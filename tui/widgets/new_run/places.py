"""Where people keep models and data: what the New run pickers offer, and how a typed path is completed.

Everything here reads folders, so it runs in threads. A folder that cannot be read is passed over: a picker
offers what it finds, and a typed path still reaches the rest (and is told what is wrong with it).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.demo import HELD_OUT_FILE, MODEL_DIRECTORY, TRAIN_FILE
from engine.spec import RunSpec
from profiles.problem import Problem

Kind = Literal["model", "data"]

DATA_SUFFIXES = (
    ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".feather", ".txt", ".md", ".markdown",
)  # fmt: skip
# Anywhere else than in a folder for data these are somebody's notes.
TEXT_SUFFIXES = (".txt", ".md", ".markdown")
PACKED_SUFFIXES = (".gz", ".zst")
# Where disks, shares and sticks are mounted: /media/USER/NAME, /run/media/USER/NAME, /mnt/NAME.
MOUNTS = ("/media/*", "/run/media/*", "/mnt")
MOUNTED_WORDS = ("data", "datasets")
# What marks a folder as somebody's model, whole or not: one with weights and no config is offered too, so
# that the person is told what it lacks.
MODEL_SIGNS = ("config.json", "adapter_config.json")
WEIGHT_SUFFIXES = (".safetensors", ".gguf", ".bin", ".pt")
# A folder with more entries than this is no place to pick from; the path line reaches the rest.
MOST_ENTRIES = 400
# Former runs whose model and data the pickers offer; older ones are found by their path.
FORMER_RUNS = 30
HELD_OUT_WORDS = ("held-out", "held_out", "heldout", "validation", "valid", "val", "dev", "eval", "test")


@dataclass(frozen=True, slots=True)
class Place:
    """One line of a picker: a model folder, a data file, or a folder on the way to one (not `choosable`)."""

    path: Path
    label: str
    group: str
    choosable: bool = True


def former_specs() -> list[RunSpec]:
    """Specs of former runs, newest first."""
    from engine.run.directory import list_runs

    specs = []
    for run in list_runs()[:FORMER_RUNS]:
        try:
            specs.append(run.spec())
        except Problem:
            continue  # a damaged run folder is told of on Home; here it only has nothing to offer
    return specs


def model_places(
    former: Iterable[RunSpec], environ: Mapping[str, str] = os.environ, here: Path | None = None
) -> list[Place]:
    """Model folders in the order in which a person is likely to want them, each once."""
    here, home = here or _working_folder(), expanded(environ.get("HOME", "~"))
    places = [Place(spec.model.path, label(spec.model.path), "used before") for spec in former]
    places += [Place(MODEL_DIRECTORY, label(MODEL_DIRECTORY), "bundled")]
    for folder, group in (
        (home / "models", "~/models"),
        (here, "this folder"),
        (here / "models", "./models"),
    ):
        places += [Place(each, each.name, group) for each in _folders(folder) if is_model_folder(each)]
    places += [Place(path, name, "Hugging Face cache") for name, path in _cached_models(environ, home)]
    return _each_once([place for place in places if _is_folder(place.path)])


def data_places(
    former: Iterable[RunSpec],
    environ: Mapping[str, str] = os.environ,
    here: Path | None = None,
    mounted: Sequence[Path] = (),
) -> list[Place]:
    """Data files and folders of them in the order in which a person is likely to want them, each once."""
    here, home = here or _working_folder(), expanded(environ.get("HOME", "~"))
    places = [Place(path, path.name, "used before") for spec in former for path in spec.data.paths]
    places += [Place(path, path.name, "bundled") for path in (TRAIN_FILE, HELD_OUT_FILE)]
    for folder, group in ((here, "this folder"), (here / "data", "./data"), (home / "data", "~/data")):
        places += _data_in(folder, group, is_for_data=folder != here)
    for folder in mounted:
        group = short_path(folder, home)
        places += _data_in(folder, group)
        for name in MOUNTED_WORDS:
            places += _data_in(folder / name, f"{group}/{name}", is_for_data=True)
    return _each_once([place for place in places if _is_file(place.path) or _is_folder(place.path)])


def found_data() -> list[Place]:
    """The data of this person on this machine."""
    return data_places(former_specs(), mounted=mounted_disks())


def mounted_disks() -> list[Path]:
    """Folders that other disks are mounted at, as far as people mount them where it is usual."""
    found = []
    for pattern in MOUNTS:
        parent = Path(pattern.removesuffix("/*"))
        owners = _folders(parent) if pattern.endswith("*") else [parent]
        found += [folder for owner in owners for folder in _folders(owner)]
    return found


def _data_in(folder: Path, group: str, is_for_data: bool = False) -> list[Place]:
    """Data files of a folder. One that is for data also offers its texts, and the folders in it, to be read as one."""
    places = []
    for entry in _entries(folder):
        if is_data_file(entry):
            if is_for_data or entry.suffix.lower() not in TEXT_SUFFIXES:
                places.append(Place(entry, entry.name, group))
        elif is_for_data and not entry.name.startswith(".") and _is_folder(entry) and is_data_folder(entry):
            places.append(Place(entry, f"{entry.name}/", group))
    return places


def completions(text: str, kind: Kind) -> list[Place]:
    """What a typed path may become: the folder itself if it is a model, its entries that begin as typed."""
    typed = expanded(text)
    folder, begun = (typed, "") if text.endswith(("/", "~")) else (typed.parent, typed.name)
    group = short_path(folder.absolute())
    found = []
    if not begun and (is_model_folder(folder) if kind == "model" else is_data_folder(folder)):
        found.append(Place(folder.absolute(), "this folder", group))
    for entry in _entries(folder):
        if not entry.name.startswith(begun) or (entry.name.startswith(".") and not begun.startswith(".")):
            continue
        if _is_folder(entry):
            choosable = is_model_folder(entry) if kind == "model" else False
            found.append(Place(entry.absolute(), f"{entry.name}/", group, choosable))
        elif kind == "data" and (is_data_file(entry) or entry.name == begun):
            found.append(Place(entry.absolute(), entry.name, group))
    return found


def is_path_like(text: str) -> bool:
    """Whether typed text is a path rather than a few letters of a name."""
    return "/" in text or text.startswith(("~", "."))


def is_model_folder(path: Path) -> bool:
    """Whether a folder holds a model or pieces of one."""
    return any(
        entry.name in MODEL_SIGNS or (entry.suffix in WEIGHT_SUFFIXES and _is_file(entry)) for entry in _entries(path)
    )


def is_data_file(path: Path) -> bool:
    return _unpacked(path).suffix.lower() in DATA_SUFFIXES and _is_file(path)


def _unpacked(path: Path) -> Path:
    """The path that a packed file would have unpacked."""
    return path.with_suffix("") if path.suffix.lower() in PACKED_SUFFIXES else path


def _stem(path: Path) -> str:
    return _unpacked(path).stem.lower()


def is_data_folder(path: Path) -> bool:
    """Whether a folder holds data files of its own."""
    return any(is_data_file(entry) for entry in _entries(path))


def held_out_beside(train: Path) -> Path | None:
    """The file beside `train` that its name marks as held out, such as x.held-out.jsonl for x.jsonl."""
    stem = _stem(train)
    names = {f"{stem}{mark}{word}" for mark in "._-" for word in HELD_OUT_WORDS}
    if "train" in stem:
        names |= {stem.replace("train", word) for word in HELD_OUT_WORDS}
    return next((each for each in _entries(train.parent) if _stem(each) in names and is_data_file(each)), None)


def label(path: Path) -> str:
    """The name of a model or a data file as a list shows it; its path stands beside the list."""
    if path == MODEL_DIRECTORY:
        return "bundled demo model"
    cached = next((part for part in path.parts if part.startswith("models--")), None)
    return cached.removeprefix("models--").replace("--", "/") if cached else path.name


def short_path(path: Path, home: Path | None = None) -> str:
    """A path as people write it, with ~ for their home."""
    home = home or expanded("~")
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) and path != home else str(path)


def expanded(text: str) -> Path:
    """A typed path with ~ replaced by the home it stands for; as it is where there is no such person."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _cached_models(environ: Mapping[str, str], home: Path) -> Iterator[tuple[str, Path]]:
    hub = Path(environ.get("HF_HUB_CACHE") or Path(environ.get("HF_HOME") or home / ".cache/huggingface") / "hub")
    for folder in _folders(hub):
        if not folder.name.startswith("models--"):
            continue
        snapshots = sorted(_folders(folder / "snapshots"), key=_modified, reverse=True)
        # Older snapshots of one model only repeat its name.
        newest = next((each for each in snapshots if is_model_folder(each)), None)
        if newest is not None:
            yield label(newest), newest


def _folders(path: Path) -> list[Path]:
    return [each for each in _entries(path) if not each.name.startswith(".") and _is_folder(each)]


def _entries(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as scan:
            names = [entry.name for entry, _ in zip(scan, range(MOST_ENTRIES), strict=False)]
    except OSError:
        return []  # not there, not a folder or not ours to read: nothing to offer
    return [path / name for name in sorted(names, key=str.casefold)]


def _working_folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path("/")  # it was deleted under us


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False  # in a folder that may be listed but not entered


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _each_once(places: list[Place]) -> list[Place]:
    seen: dict[str, Place] = {}
    for place in places:
        seen.setdefault(os.path.realpath(place.path), place)
    return list(seen.values())
