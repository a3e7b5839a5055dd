"""A run's folder: where each file of a run lies, how runs are listed and found. The folder alone is the truth."""

from __future__ import annotations

import difflib
import errno
import os
import re
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from engine.home import home
from profiles.problem import Problem, printable

if TYPE_CHECKING:
    from engine.spec import RunSpec

FOLDER_NAME = re.compile(r"(?P<stamp>\d{8}T\d{6}Z)-(?P<slug>.+)")
"""What the folders of runs are called: when each was made, and its spec's name."""

KEPT_DATA_ACCEPTED = "go-on-with-kept-data"
"""Is in a run's data folder where the run is to go on with what it began with, whatever became of its files."""


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """One run's folder and the places in it."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name: the moment of its making in UTC (no earlier than of those before it, whatever the clock
        says), a dash, the spec's name."""
        return self.path.name

    @property
    def spec_name(self) -> str:
        """The name its person gave the run; the folder's whole name where that has another form."""
        match = FOLDER_NAME.fullmatch(self.name)
        return match["slug"] if match else self.name

    @property
    def spec_path(self) -> Path:
        return self.path / "spec.toml"

    @property
    def environment_path(self) -> Path:
        return self.path / "environment.json"

    @property
    def events_path(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def snapshot_path(self) -> Path:
        return self.path / "snapshot.json"

    @property
    def log_path(self) -> Path:
        return self.path / "engine.log"

    @property
    def lock_path(self) -> Path:
        return self.path / "lock"

    @property
    def pid_path(self) -> Path:
        return self.path / "pid.json"

    @property
    def claim_path(self) -> Path:
        """Which memory the run waits for or was promised."""
        return self.path / "claim.json"

    @property
    def ballast_path(self) -> Path:
        """Disk space that the journal falls back on when the disk is full."""
        return self.path / ".ballast"

    @property
    def socket_path(self) -> Path:
        return self.path / "control.sock"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def outputs(self) -> Path:
        return self.path / "outputs"

    @property
    def exports(self) -> Path:
        """Where an export goes for which no other place was named."""
        return self.path / "exports"

    @property
    def data(self) -> Path:
        """The run's prepared data: its own names for the shards that it learns from."""
        return self.path / "data"

    @property
    def rejects_path(self) -> Path:
        """The rows that were set aside, each with its place and reason."""
        return self.data / "rejects.jsonl"

    @property
    def evaluation(self) -> Path:
        """What the base model says, kept so that a resumed run need not ask it again."""
        return self.path / "evaluation"

    @property
    def workers_own(self) -> tuple[Path, ...]:
        """The folders that the trainer writes into. All else in the run's folder is written by the unsealed side, and
        a sealed trainer can neither write nor replace it."""
        return (self.checkpoints, self.outputs, self.data, self.evaluation)

    @property
    def lineage_path(self) -> Path:
        """Where everything that the run learnt from came from."""
        return self.path / "lineage.json"

    @property
    def answers_path(self) -> Path:
        """The base model's answers to the held-out rows."""
        return self.evaluation / "before.jsonl"

    def accept_kept_data(self) -> None:
        """Have the run go on with the data it began with, though its files changed. Raises Problem."""
        try:
            self.data.mkdir(mode=0o700, exist_ok=True)
            # Where its trainer may write, too: a link that it put there is not followed.
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            os.close(os.open(self.data / KEPT_DATA_ACCEPTED, flags, 0o600))
        except OSError as error:
            raise disk_problem(self.path, error) from None

    def spec(self) -> RunSpec:
        """What the run was asked to do. Raises Problem when spec.toml is gone or damaged."""
        from engine.spec import (
            load_spec,
        )  # here, since pydantic takes half of the app's time to its first text

        return load_spec(self.spec_path)


def runs_root() -> Path:
    """The folder that holds the run folders; it need not exist yet."""
    return home() / "runs"


def list_runs() -> list[RunDirectory]:
    """All runs, newest first. Raises Problem when the folder of runs is there but cannot be read."""
    root = runs_root()
    try:
        entries = list(root.iterdir())
        found = [aged for entry in entries if (aged := _with_its_age(RunDirectory(entry))) is not None]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise disk_problem(root, error) from None
    return [run for _, run in sorted(found, key=itemgetter(0), reverse=True)]


def find_run(text: str) -> RunDirectory:
    """The run a person means by `text`: "latest", a run folder's name or an unmistakable part of it, the name in
    its spec (the newest of that name), or a path. Raises Problem when none or several fit."""
    if os.sep in text or text in (".", "..") or text.startswith("~"):
        return _run_at(Path(text).expanduser().absolute())
    runs = list_runs()
    if text == "latest" and runs:
        return runs[0]
    for matches in (
        [run for run in runs if run.name == text],
        [run for run in runs if run.spec_name == text][:1],
        [run for run in runs if text and text in run.name],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            names = ", ".join(run.name for run in matches[:5]) + (", …" if len(matches) > 5 else "")
            raise Problem(f"run {printable(text)}", f"fits {len(matches)} runs: {names}", "Give more of the name.")
    raise Problem(f"run {printable(text)}", f"there is no such run in {runs_root()}", _close_names(text, runs))


def disk_problem(path: Path, error: OSError) -> Problem:
    """What a person is told when finetui's own files cannot be written or read at `path`."""
    elsewhere = "set FINETUI_HOME to a folder that you can write to."
    where = str(error.filename or path)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = "the disk is full" if error.errno == errno.ENOSPC else "your disk quota is used up"
        return Problem(where, what, f"Free some space, or {elsewhere}")
    what = {
        errno.EROFS: "the disk is read-only",
        errno.EACCES: "you are not permitted to use this folder",
        errno.EPERM: "you are not permitted to use this folder",
        errno.ENOTDIR: "a file stands where a folder is needed",
        errno.EEXIST: "a file stands where a folder is needed",
        errno.ENAMETOOLONG: "the name is too long for this disk",
        errno.EFBIG: "a file would be larger than this process (ulimit -f) or this disk allows",
    }.get(error.errno or 0, f"cannot be used: {error.strerror or error}")
    return Problem(where, what, f"Correct that, or {elsewhere}")


def _with_its_age(run: RunDirectory) -> tuple[tuple[str, int, str], RunDirectory] | None:
    """A run and what puts it into its place by age; None for a folder that is no run. Raises OSError."""
    match = FOLDER_NAME.fullmatch(run.name)
    try:
        if not run.spec_path.is_file():
            return None
        return (match["stamp"] if match else "", run.spec_path.stat().st_mtime_ns, run.name), run
    except FileNotFoundError:  # removed at this very moment, which says nothing about the others
        return None


def _run_at(path: Path) -> RunDirectory:
    run = RunDirectory(path.resolve())
    if run.spec_path.is_file():
        return run
    what = "is not a run's folder: it has no spec.toml" if path.is_dir() else "there is no such folder"
    raise Problem(
        printable(path, 500), what, "Give a run's name, or the path of its folder. `finetui runs` lists them."
    )


def _close_names(text: str, runs: list[RunDirectory]) -> str:
    if not runs:
        return "There are no runs yet; `finetui train` starts one."
    names = [run.name for run in runs] + [run.spec_name for run in runs]
    close = list(dict.fromkeys(difflib.get_close_matches(text, names, n=3)))
    return f"Did you mean {' or '.join(close)}?" if close else "`finetui runs` lists them."
