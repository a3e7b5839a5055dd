"""A preparation in the background, from the app's side: how far it is, and what came of it. Imports nothing heavy."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.child_process import describe_exit, last_line
from engine.data.prepare.progress import Progress
from engine.data.prepare.sealed_places import preparing_places
from engine.data.source import READER
from engine.modules import module_command
from engine.run.sealing.hearing import Hearing
from profiles.problem import Problem


@dataclass(frozen=True, slots=True)
class Prepared:
    """What came of a preparation. `account` is Dataset.as_dict() without the shards: sources (path, rows, trained,
    held_out, left_out, set_aside, reasons, cut, shapes ...), notes, rejects (the first), reject_count, cut_rows,
    train_tokens, target_tokens, kind, labels."""

    account: Mapping[str, Any]

    @property
    def lengths(self) -> list[tuple[int, int]]:
        """(tokens, rows): how many usable rows have so many tokens before any is cut, in rising order; of a row with
        several sequences its longest counts."""
        return [(tokens, rows) for tokens, rows in self.account["uncut_lengths"]]


class Preparation:
    """Starts at once, in a process of its own that ends with this one's `cancel` or with the app.

    What was prepared before a cancel is kept, and another preparation of the same files goes on from there. All
    attributes may be read from any thread.
    """

    def __init__(self, model: Path, data: Mapping[str, Any]):
        """`data` is a spec's data section as JSON types. Raises OSError when no process can be started."""
        self.progress: Progress | None = None
        """The last that was told; None before the first."""
        self.result: Prepared | None = None
        self.problem: Problem | None = None
        self.tried = ""
        """What tried to get out of its seal, as a sentence; known when it is done. A problem says it itself."""
        self._is_cancelled = False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with this object)
        self._hearing = Hearing(READER)
        self._process, _ = self._hearing.start(
            module_command("engine.data.prepare", str(model)),
            preparing_places(model, data),
            "best",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        self._reader = threading.Thread(target=self._read, args=(json.dumps(data),), daemon=True)
        self._reader.start()

    @property
    def is_done(self) -> bool:
        """Whether there is a result or a problem, or it was cancelled."""
        return not self._reader.is_alive()

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until it is done. Returns whether it is."""
        self._reader.join(timeout_seconds)
        return self.is_done

    def cancel(self) -> None:
        """End it now, its processes included; neither a result nor a problem follows."""
        self._is_cancelled = True
        self._process.kill()

    def _read(self, data: str) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(OSError):  # it died; how is told below
            self._process.stdin.write(data.encode())
            self._process.stdin.close()
        for line in self._process.stdout:
            if not line.endswith(b"\n"):
                break  # it was killed while it wrote
            values = json.loads(line)
            kind = values.pop("kind")
            if kind == "progress":
                self.progress = Progress(**values)
            elif kind == "problem":
                self.problem = Problem(**values)
            else:
                self.result = Prepared(values["account"])
        status = self._process.wait()
        self._hearing.close()
        self.tried = self._hearing.told()
        if self.result is None and self.problem is None and not self._is_cancelled:
            said = last_line(self._log)
            ended = f"the process that prepares them {describe_exit(status)}"
            self.problem = Problem("the data", f"{ended}: {said}" if said else ended, "Try again.")
        if self.problem is not None:
            self.problem = self._hearing.beside(self.problem)
