"""Processes that the launcher seals, as this user and as another one, and what they told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.seal.policy.links import hops
from engine.seal.report import SealReport
from engine.seal.request import LAYERS, Layer, Level, SealRequest

TREE = Path(__file__).parents[2]
ANOTHER_USER = 1001
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc/ld.so.cache")


@dataclass(frozen=True)
class Told:
    """How a command ended, and what the launcher reported of it."""

    status: int
    output: str
    errors: str
    report: SealReport

    @property
    def answer(self) -> Any:
        """The JSON that the command printed."""
        assert self.status == 0, self.errors
        return json.loads(self.output)


@dataclass(frozen=True)
class Account:
    """A user, with a launcher and an interpreter that it may read, and a folder of its own that all may enter."""

    user: int
    tree: Path
    python: str
    folder: Path

    def python_places(self) -> tuple[str, ...]:
        # The environment may lie beside the tree.
        installed = (str(hop.parents[1]) for hop in hops(self.python))
        return (*SYSTEM, *installed, str(self.tree))

    def sealed(
        self,
        command: Sequence[str] | str,
        level: Level = "best",
        *,
        only: Sequence[Layer] | None = None,
        read: Sequence[Path | str] = (),
        write: Sequence[Path | str] = (),
        keep: Sequence[int] = (),
        refusals: int | None = None,
        prepare: Callable[[], None] | None = None,
        before: Sequence[str] = (),
        python: str | None = None,
        **popen: Any,
    ) -> Told:
        """`command` (text: a program of Python's) as the launcher seals it: with the layers `only`, all where None.
        `prepare` runs before the launcher, as this user; `before` are words before its command."""
        if isinstance(command, str):
            command = [self.python, "-I", "-S", "-c", command]
        ours, theirs = os.pipe()
        asked = os.memfd_create("request")
        without = () if only is None else tuple(layer for layer in LAYERS if layer not in only)
        names = (*self.python_places(), *map(str, read))
        request = SealRequest(level, theirs, names, tuple(map(str, write)), keep=tuple(keep), without=without)
        values = {**json.loads(request.to_json()), "refusals": refusals, **popen.pop("request", {})}
        os.write(asked, json.dumps(values).encode())
        os.lseek(asked, 0, os.SEEK_SET)
        launcher = [python or self.python, "-I", "-S", str(self.tree / "engine/seal/launcher.py")]
        if self.user != os.geteuid():
            popen |= {"user": self.user, "group": self.user, "extra_groups": []}
        kept = (asked, theirs, *keep, *([] if refusals is None else [refusals]), *popen.pop("pass_fds", ()))
        process = subprocess.Popen(
            [*before, *launcher, "--request", str(asked), "--", *command],
            pass_fds=kept,
            preexec_fn=prepare,  # noqa: PLW1509 -- no threads of ours hold locks that it needs
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **{"cwd": self.folder, "stdin": subprocess.DEVNULL, **popen},
        )
        os.close(asked)
        os.close(theirs)
        with os.fdopen(ours) as answer:
            report = answer.read()
        output, errors = process.communicate(timeout=60)
        assert report, f"no report; status {process.returncode}: {errors}"
        return Told(process.returncode, output, errors, SealReport.from_dict(json.loads(report)))


def network_of_mine() -> str:
    """This process's own network namespace, as the kernel names it."""
    return str(Path("/proc/self/ns/net").readlink())


def account(another: bool, folder: Path) -> Account:
    """This user, or `another` one; skips the test where there can be none. `folder` is empty and all may enter it."""
    home = folder / "home"
    if not another:
        home.mkdir()
        return Account(os.geteuid(), TREE, sys.executable, home)
    if os.geteuid() != 0:
        pytest.skip("only root can start processes of another user")
    python = next((path for path in (sys.executable, "/usr/bin/python3") if _is_for_all(Path(path).resolve())), None)
    if python is None:
        pytest.skip("this machine has no Python that another user could run")
    tree = folder / "tree"
    for part in ("engine/__init__.py", "engine/seal/__init__.py", "engine/seal/launcher.py", "engine/seal/layers"):
        source, target = TREE / part, tree / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            # Modules that another process compiles just now have such names for a moment.
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.pyc.*"))
        else:
            shutil.copy(source, target)
    for path in (tree, *tree.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    home.mkdir()
    os.chown(home, ANOTHER_USER, ANOTHER_USER)
    return Account(ANOTHER_USER, tree, python, home)


def _is_for_all(path: Path) -> bool:
    return path.exists() and all(each.stat().st_mode & 0o005 == 0o005 for each in (path, *path.parents))
