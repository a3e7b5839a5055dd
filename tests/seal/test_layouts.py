"""The seal on machines as people have them: odd homes, names, links, limits and Pythons break no honest work."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from command import Finetui
from launching import TREE, Account
from test_layers import require_here

from engine.seal.policy.base import base_places
from engine.seal.policy.links import with_links
from engine.seal.request import LAYERS

ROWS = b'{"text": "one"}\n'
FEW_DESCRIPTORS = 40


@dataclass
class Layout:
    """What is read, in a folder that is the user's, and how the reader is started."""

    folder: Path
    paths: list[str | bytes] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    prepare: Callable[[], None] = lambda: None
    before: tuple[str, ...] = ()

    def file(self, *names: str | bytes) -> Path:
        path = self.folder.joinpath(*map(os.fsdecode, names))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(ROWS)
        return path


def hub_cache(layout: Layout) -> None:
    """A model of the hub's cache, which lies on another disk than the home folder that it is named in."""
    layout.file("disk", "hub", "blobs", "aa")
    snapshot = layout.folder / "disk/hub/snapshots/12"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to("../../blobs/aa")
    (layout.folder / "hub").symlink_to("disk/hub")
    (layout.folder / "model").symlink_to(layout.folder / "hub/snapshots/12")
    layout.paths.append("model")


def odd_names(layout: Layout) -> None:
    layout.paths += [bytes(layout.file("a 'b' \"c\"\n$d", b"\xff\xfe.jsonl")), "./a 'b' \"c\"\n$d"]


def ways_that_go_back(layout: Layout) -> None:
    """Into a folder that nothing else is read of, by name and by the target of a link."""
    layout.file("data", "inner", "rows.jsonl")
    (layout.folder / "project/deeper").mkdir(parents=True)
    (layout.folder / "project/link").symlink_to("deeper/../../data/other/../inner")
    (layout.folder / "data/other").mkdir()
    layout.paths += ["project/../data/inner/rows.jsonl", "project/deeper/../link", "project/link/rows.jsonl"]


def no_home(layout: Layout) -> None:
    """Nor does the system's list of users name one, as in a container."""
    layout.without = ("HOME",)
    layout.paths.append(str(layout.file("rows.jsonl")))


def home_is_the_root(layout: Layout) -> None:
    layout.environment["HOME"] = "/"
    layout.paths.append(str(layout.file("rows.jsonl")))


def home_is_a_link(layout: Layout) -> None:
    layout.file("real", "rows.jsonl")
    (layout.folder / "home").symlink_to("real")
    layout.environment["HOME"] = str(layout.folder / "home")
    layout.paths.append(str(layout.folder / "home/rows.jsonl"))


def variables_that_name_nothing(layout: Layout) -> None:
    layout.environment |= {"HOME": "here", "TMPDIR": ".", "LD_LIBRARY_PATH": "::.", "XDG_CACHE_HOME": ""}
    layout.paths.append(str(layout.file("rows.jsonl")))


def folder_was_removed(layout: Layout) -> None:
    gone = layout.folder / "gone"

    def remove() -> None:
        gone.mkdir()
        os.chdir(gone)
        gone.rmdir()

    layout.paths.append(str(layout.file("rows.jsonl")))
    layout.prepare = remove


def few_descriptors_and_many_places(layout: Layout) -> None:
    for number in range(4 * FEW_DESCRIPTORS):
        layout.file("pool", str(number), "rows.jsonl")
        (layout.folder / f"data-{number}.jsonl").symlink_to(f"pool/{number}/rows.jsonl")
        layout.paths.append(f"data-{number}.jsonl")
    layout.prepare = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FEW_DESCRIPTORS, FEW_DESCRIPTORS))


def nobody_else_may_enter(layout: Layout) -> None:
    layout.paths.append(str(layout.file("rows.jsonl")))
    layout.prepare = lambda: os.umask(0o077) and None


def mounts_that_are_locked(layout: Layout) -> None:
    """As in a container without root."""
    layout.before = ("unshare", "--user", "--map-root-user", "--mount")
    layout.paths.append(str(layout.file("rows.jsonl")))


LAYOUTS = (
    *(hub_cache, odd_names, ways_that_go_back, no_home, home_is_the_root, home_is_a_link, variables_that_name_nothing),
    *(folder_was_removed, few_descriptors_and_many_places, nobody_else_may_enter, mounts_that_are_locked),
)


@pytest.fixture
def whole_tree(open_folder: Path) -> Path:
    """What a sealed process is started from, readable for all."""
    tree = open_folder / "whole"
    for part in ("engine", "profiles", "tests/seal"):
        shutil.copytree(TREE / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (tree, *tree.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return tree


def read(user: Account, tree: Path, layout: Layout) -> Mapping[str, Any]:
    """What `reading_sealed.py` told."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(user.folder),
        "PYTHONPATH": str(tree),
        "FINETUI_HOME": str(user.folder / "finetui"),
        **layout.environment,
    }
    other = {"user": user.user, "group": user.user, "extra_groups": []} if user.user != os.geteuid() else {}
    done = subprocess.run(
        [*layout.before, user.python, "-S", "-P", str(tree / "tests/seal/reading_sealed.py"), *layout.paths],
        env={name: value for name, value in environment.items() if name not in layout.without},
        cwd=layout.folder,
        preexec_fn=layout.prepare,
        capture_output=True,
        timeout=100,
        check=False,
        **other,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.mark.parametrize("lay_out", LAYOUTS, ids=lambda each: each.__name__)
def test_a_person_s_files_are_read_wherever_they_lie(
    somebody: Account, whole_tree: Path, lay_out: Callable[[Layout], None]
) -> None:
    require_here(*LAYERS)
    layout = Layout(somebody.folder)
    lay_out(layout)
    if layout.before and subprocess.run([*layout.before, "true"], check=False).returncode:
        pytest.skip("no user namespaces here")
    for path in (somebody.folder, *somebody.folder.rglob("*")):
        os.chown(path, somebody.user, somebody.user, follow_symlinks=False)
    before = set(Path("/").iterdir())
    told = read(somebody, whole_tree, layout)
    assert told["status"] == 0 and all(size == len(ROWS) for size in told["sizes"])
    assert len(told["sizes"]) == len(layout.paths)
    assert told["layers"] == dict.fromkeys(LAYERS, ""), "whole, without a gap"
    # Temporary files, which may be large, are kept on a disk.
    assert Path(told["temporary"]).parent == somebody.folder / "finetui/cache/scratch"
    assert set(Path("/").iterdir()) == before, "nothing is made outside"


def test_links_into_very_many_folders_are_given_by_the_one_above_and_never_by_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    for number in range(600):
        for folder in (tmp_path / "pool" / str(number), home / str(number)):
            folder.mkdir(parents=True)
            (folder / "rows.jsonl").touch()
        for name, target in (("pooled", "pool"), ("own", "home")):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{number}.jsonl").symlink_to(f"../{target}/{number}/rows.jsonl")
    assert set(with_links(tmp_path / "pooled")) == {str(tmp_path / "pooled"), str(tmp_path / "pool")}
    own = set(with_links(tmp_path / "own"))
    assert own == {str(tmp_path / "own"), *(str(home / str(number)) for number in range(600))}


def test_a_python_that_was_built_for_the_home_folder_opens_its_own_parts_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    prefix = tmp_path / ".local"
    for part in ("bin", "lib", "share/keyrings"):
        (prefix / part).mkdir(parents=True)
    for name in ("prefix", "exec_prefix", "base_prefix", "base_exec_prefix"):
        monkeypatch.setattr(sys, name, str(prefix))
    given = [Path(each) for each in base_places({}).read]
    assert {prefix / "bin", prefix / "lib"} <= set(given)
    assert not any((prefix / "share/keyrings").is_relative_to(each) for each in given)


def test_packages_that_are_run_from_where_they_are_written_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {name: tmp_path / name for name in ("mapped", "spread", "redirected", "on_the_path")}
    for folder in own.values():
        folder.mkdir()
        (folder / "__init__.py").touch()
    setuptools = ModuleType("__editable___own_1_finder")
    setuptools.MAPPING = {"mapped": str(own["mapped"])}  # type: ignore[attr-defined]
    setuptools.NAMESPACES = {"spread": [str(own["spread"])]}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, setuptools.__name__, setuptools)
    finder = SimpleNamespace(
        find_spec=lambda *_: None, _redirections={"redirected": str(own["redirected"] / "__init__.py")}
    )
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, finder])
    monkeypatch.setattr(sys, "path", [*sys.path, str(own["on_the_path"])])
    assert set(map(str, own.values())) <= set(base_places({}).read)


@pytest.mark.slow
def test_a_run_is_trained_and_exported_by_a_user_without_a_home_under_narrow_limits(tmp_path: Path) -> None:
    import tiny
    from training import write_chats  # here, since they import torch

    blobs, snapshot = tmp_path / "hub/blobs", tmp_path / "hub/snapshots/12"
    tiny.make_model(blobs)
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    rows = write_chats(tmp_path / "rows.jsonl", 40)
    finetui = Finetui(tmp_path / "home", {"TMPDIR": ".", "FINETUI_HOME": os.path.relpath(tmp_path / "home")})
    narrow = ("env", "-u", "HOME", "prlimit", "--nofile=64:64", "--core=0")
    settings = ("method.rank=2", "train.max_steps=4", "evaluation.answers=0", "data.sequence_length=256")
    sets = [word for each in settings for word in ("--set", each)]
    done = finetui("train", "--model", snapshot, "--data", rows, *sets, "--seal", "required", "--wait", before=narrow)
    assert done.status == 0, done.stdout + done.stderr
    done = finetui("export", "latest", "--to", "merged", "--into", tmp_path / "out", before=narrow)
    assert done.status == 0 and (tmp_path / "out/model.safetensors").stat().st_size, done.stderr
