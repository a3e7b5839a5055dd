"""Having a model's pickles converted: a sealed child opens them, and the new folder is there whole or not at all.

A pickle may take the child over, for which it is sealed. So what it says is checked as anybody's words are, it is ended
when its time is over, and what it leaves counts only where it is plain files of the names that a conversion makes.
Taking numbers out of a pickle never tries to reach a network. Where that process tries, other code than ours runs in
it: then nothing that it wrote or said is believed, also not that its tensors are the pickle's, and nothing is kept.
"""

from __future__ import annotations

import re
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import IO, Any

from engine.child_process import describe_exit, last_line
from engine.convert.pickled_folder import PickledModel
from engine.export.staging import check_target, staged, sweep
from engine.modules import module_command
from engine.run.sealing.hearing import Hearing
from engine.run.telemetry.records import from_line, to_line
from engine.seal.group import GroupProcess
from engine.seal.policy.places import reading_places
from engine.seal.report import SealReport
from profiles.machine.kernel import require_kernel
from profiles.problem import Problem, printable

Progress = Callable[[str, int, int], None]
"""Told what is being done in words, and the bytes of the pickles done, of how many."""

# Importing torch takes up to a minute on a busy machine; then a slow disk reads once, and writes and reads again.
_STARTING_SECONDS = 600
_SLOW_BYTES_PER_SECOND = 10 << 20
# It ends itself, unless it was taken over.
_LATE_SECONDS = 60
_LINE_LIMIT_BYTES = 1 << 20
_MADE = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")
_NOT_TRUSTED = "Nothing was written. Choose a safetensors version of this model."
_ALARM = (
    "Nothing was written. Do not open this model with anything. If what tried is a program of your own that runs in "
    "every Python, convert without it."
)


@dataclass(frozen=True, slots=True)
class Converted:
    """The new folder, and what there is to say of it."""

    path: Path
    tensors: int
    bytes: int
    """Of all tensors."""
    notes: tuple[str, ...]
    seal: SealReport
    """Under which the pickles were opened."""


def convert_model(model: PickledModel, into: Path, progress: Progress = lambda detail, done, total: None) -> Converted:
    """Write `model` with safetensors into the folder `into`, which must be empty or not there. Blocks, for minutes with
    large models.

    Raises Problem: the target cannot be written or has too little room, a file needs more than weights do, is damaged,
    or holds something else, or the process that opened it tried to reach a network; then nothing of the target is
    there.
    """
    require_kernel()
    target = check_target(into)
    try:
        with staged(target, model.weight_bytes, "the converted model") as folder:
            done = _converted(model, folder, target, progress)
            _require_made(model, folder)
    finally:
        sweep(target)
    return done


def _converted(model: PickledModel, folder: Path, target: Path, progress: Progress) -> Converted:
    seconds = _STARTING_SECONDS + model.weight_bytes // _SLOW_BYTES_PER_SECOND
    asked = {
        "folder": str(model.folder),
        "files": model.files,
        "weight_map": model.weight_map,
        "others": model.others,
        "into": str(folder),
        "seconds": seconds,
    }
    hearing = Hearing("a process that")
    with tempfile.TemporaryFile() as log, _silent(hearing, model.folder):
        child, report = hearing.start(
            module_command("engine.convert"),
            reading_places((model.folder,), write=(folder,)),
            "best",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        with _ended(child, seconds + _LATE_SECONDS):
            try:
                done = _follow(child, to_line(asked), log, seconds, progress)
                return Converted(
                    target, int(done["tensors"]), int(done["bytes"]), tuple(map(str, done["notes"])), report
                )
            except (KeyError, TypeError, ValueError):
                what = "was said in other words than finetui's by the process that opened the pickles"
                raise Problem("how the conversion went", what, _NOT_TRUSTED) from None


@contextmanager
def _silent(hearing: Hearing, folder: Path) -> Iterator[None]:
    """Raises Problem after the block where something was tried in it, whatever else there was to say of its child."""
    said: Problem | None = None
    try:
        yield
    except Problem as problem:
        said = problem
    finally:
        hearing.close()
    if told := hearing.told():
        raise Problem(f"{folder}, weights", f"were opened by {told}", _ALARM) from said
    if said is not None:
        raise said


@contextmanager
def _ended(child: GroupProcess, seconds: int) -> Iterator[None]:
    """`child`, with all that it started, has ended after the block, also on Ctrl+C; and after `seconds` within."""
    late = Timer(seconds, child.kill)
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()
        late.join()
        child.kill()
        child.wait()


def _require_made(model: PickledModel, folder: Path) -> None:
    """Raises Problem for anything that a conversion does not make: a link would be followed by whoever uses the folder,
    a pipe waited for, a file of code perhaps run."""
    for path in folder.iterdir():
        status = path.lstat()
        is_ours = path.name in model.others or _MADE.fullmatch(path.name) is not None
        if not is_ours or not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            what = f"were opened by a process that left {printable(path.name)}, which no conversion makes"
            raise Problem(f"{model.folder}, weights", what, _NOT_TRUSTED)


def _follow(child: GroupProcess, asked: bytes, log: IO[bytes], seconds: int, progress: Progress) -> dict[str, Any]:
    """What the child says at last. Raises Problem, and KeyError, TypeError, ValueError for words of another's."""
    assert child.stdin is not None and child.stdout is not None
    try:
        child.stdin.write(asked)
        child.stdin.close()
    except BrokenPipeError:
        pass  # it died; how is told below
    with child.stdout as lines:
        while (line := lines.readline(_LINE_LIMIT_BYTES)).endswith(b"\n"):
            message = from_line(line) or {}
            match message.pop("kind"):
                case "progress":
                    progress(str(message["detail"]), int(message["done"]), int(message["total"]))
                case "problem":
                    raise Problem(str(message["where"]), str(message["what"]), str(message["fix"]))
                case "finished":
                    return message
    status = child.wait()
    what = f"the process that opened the pickles {describe_exit(status)}"
    if words := last_line(log):
        what += f"; its last words: {words}"
    raise Problem(
        "the conversion", what, f"Nothing was written. It may take {seconds // 60} minutes; free memory, and try again."
    )
