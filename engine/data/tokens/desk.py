"""A model's tokenizer at hand for a screen or a command: asks a child process about single rows, with a time limit.

The child holds the tokenizer and runs the model's chat template; whatever a template does, it is that process's end at
worst. Calls block, and may come from any thread, one at a time.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.child_process import describe_exit, last_line
from engine.data.source import READER, Source
from engine.data.tokens.xray import TrainOn, XRay
from engine.home import cache_root
from engine.modules import module_command
from engine.run.sealing.hearing import Hearing
from engine.seal.policy.places import data_places
from profiles.problem import Problem

# Reading to a row far into a file of 10 GB takes a minute; a first answer may wait for transformers besides.
_TIME_LIMIT_SECONDS = 120.0
_OPENING_LIMIT_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class RowLength:
    line: int
    tokens: int
    """Of its longest sequence."""
    prompt_tokens: int
    """Before its first answer: what is lost for the answer when a sequence is no longer than this."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What becomes of the first rows that can be read as the source's kind of content."""

    lengths: tuple[RowLength, ...]
    set_aside: Mapping[str, int]
    """Rows that the tokenizer or the chat template sets aside, by reason."""
    altered: Mapping[str, int]
    """Rows in which the chat template leaves out or changes the text of a role, by role."""
    warnings: Mapping[str, int]
    """Rows for each sentence about them."""

    def notes(self) -> list[str]:
        """One sentence for each, the most frequent first."""
        rows = len(self.lengths) + sum(self.set_aside.values())
        told = {f"a run sets them aside: a row {reason}": count for reason, count in self.set_aside.items()}
        told |= {
            f"the chat template leaves out or changes the text of {role} messages": count
            for role, count in self.altered.items()
        }
        told |= self.warnings
        ordered = sorted(told.items(), key=lambda item: -item[1])
        return [f"{count:,} of {rows:,} rows: {sentence}" for sentence, count in ordered]


class Desk:
    """Made for one model and one chat template. The child starts with the first call, and anew after one that failed.

    Every call raises Problem for what cannot be answered: a model without a tokenizer, a row that a run would set
    aside, a template that takes too long.
    """

    def __init__(self, model: Path, chat_template: str = "model", limit_seconds: float = _TIME_LIMIT_SECONDS):
        self._model, self._chat_template = model, chat_template
        self._limit_seconds = limit_seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._hearing: Hearing | None = None
        self._tried = ""
        """By one child before, as a sentence."""
        self._shown: dict[Path, tuple[int, int] | None] = {}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as this object lives
        self._about: dict[str, Any] = {}

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of the tokenizer and the choice of template."""
        with self._lock:
            self._open()
        return tuple(self._about["notes"])

    @property
    def tried(self) -> str:
        """What the child, or one before it, tried to get out of its seal, as a sentence."""
        with self._lock:
            return (self._hearing.told() if self._hearing is not None else "") or self._tried

    @property
    def has_template(self) -> bool:
        with self._lock:
            self._open()
        return bool(self._about["has_template"])

    def suggested_template(self) -> tuple[str, str]:
        """(name, reason) of the known template that suits the model's special tokens best."""
        from engine.data.tokens.templates import suggest_template

        with self._lock:
            self._open()
        return suggest_template(self._about["special"])

    def xray(self, source: Source, line: int, sequence_length: int, train_on: TrainOn = "answers") -> list[XRay]:
        """The row that begins at `line`, in the unit of its file. Rows further on than the last are found quickly."""
        asked = {"line": line, "sequence_length": sequence_length, "train_on": train_on}
        return [XRay.from_dict(each) for each in self._ask("xray", source, asked)]

    def survey(self, source: Source, rows: int) -> Survey:
        """Of the first `rows` rows that can be read."""
        told = self._ask("survey", source, {"rows": rows})
        return Survey(**{**told, "lengths": tuple(RowLength(*each) for each in told["lengths"])})

    def lengths(self, source: Source, rows: int) -> tuple[RowLength, ...]:
        """Of the usable rows among the first `rows`."""
        return self.survey(source, rows).lengths

    def close(self) -> None:
        """End the child, also from another thread than the one that waits for its answer."""
        if (process := self._process) is not None:
            process.kill()

    def _ask(self, do: str, source: Source, fields: Mapping[str, Any]) -> Any:
        told = {**asdict(source), "path": str(source.path.absolute())}
        with self._lock:
            self._show(source.path)
            self._open()
            return self._exchange({"do": do, "source": told, **fields}, self._limit_seconds)

    def _show(self, path: Path) -> None:
        """Have the child see a file or folder that is asked about: the seal shows it those that were there when it
        started, and no other, nor another file that was put in the place of one."""
        now = _identity(path)
        if path not in self._shown or self._shown[path] != now:
            self._shown[path] = now
            self._end()

    def _open(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self._end()
        template = [Path(self._chat_template)] if self._chat_template.endswith(".jinja") else []
        self._hearing = Hearing(READER)
        self._process, _ = self._hearing.start(
            module_command("engine.data.tokens.desk_child"),
            data_places([self._model, *template, *self._shown], write=[cache_root() / "tokenizers"]),
            "best",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        opening = {"do": "open", "model": str(self._model.absolute()), "chat_template": self._chat_template}
        try:
            self._about = self._exchange(opening, _OPENING_LIMIT_SECONDS)
        except Problem:
            self._end()
            raise

    def _exchange(self, asked: Mapping[str, Any], limit_seconds: float) -> Any:
        process, hearing = self._process, self._hearing
        assert process is not None and process.stdin is not None and process.stdout is not None and hearing is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(limit_seconds, give_up)
        timer.daemon = True
        timer.start()
        try:
            with suppress(OSError):  # a child that is gone gives no answer, which is told below
                process.stdin.write(json.dumps(asked) + "\n")
                process.stdin.flush()
            line = process.stdout.readline()
        finally:
            timer.cancel()
        if not line.endswith("\n"):
            status = process.wait()
            self._end()
            if late.is_set():
                what = f"the tokenizer did not answer within {limit_seconds:.0f} s"
            else:
                what = f"the tokenizer's process {describe_exit(status)}: {last_line(self._log)}".rstrip(": ")
            raise hearing.beside(Problem(str(self._model), what, "Try another row, or another chat template."))
        answer = json.loads(line)
        if answer.pop("kind") == "problem":
            raise hearing.beside(Problem(**answer))
        return answer["value"]

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        if self._hearing is not None:
            self._hearing.close()
            self._tried = self._hearing.told() or self._tried
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def _identity(path: Path) -> tuple[int, int] | None:
    """By which the kernel knows what lies at `path`; None when nothing does."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
