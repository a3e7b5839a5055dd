"""A quality report in a child process, from the side of the app: progress to look at, and an end to wait for."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from engine.child_process import describe_exit, last_line
from engine.data.quality.findings import Finding, QualityReport
from engine.data.quality.options import ReportOptions
from engine.data.quality.progress import Progress
from engine.data.source import READER, Source
from engine.home import cache_root
from engine.modules import module_command
from engine.run.sealing.hearing import Hearing
from engine.seal.policy.places import data_places
from profiles.problem import Problem

# A process that is asked to end does so between two chunks' results, which take about a second each.
_PATIENCE_SECONDS = 5.0


class QualityRun:
    """Starts at once. Ends with this process, by `cancel`, or with its report."""

    def __init__(
        self,
        sources: Sequence[Source],
        held_out: Source | None = None,
        benchmarks: Sequence[Path] = (),
        options: ReportOptions | None = None,
    ):
        self.progress = Progress(0, 0, 0, 0.0, "starting")
        """The newest; read it from any thread."""
        self._ended = threading.Event()
        self._result: QualityReport | Problem | None = None
        self._is_cancelled = False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed with this object
        options = options or ReportOptions()
        read = [*(source.path for source in sources), *([] if held_out is None else [held_out.path]), *benchmarks]
        read += [] if options.model is None else [options.model]
        self._hearing = Hearing(READER)
        self._child, _ = self._hearing.start(
            module_command("engine.data.quality"),
            data_places(read, write=(work_root(), cache_root() / "tokenizers")),
            "best",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        request = {
            "sources": [source_as_dict(source) for source in sources],
            "held_out": None if held_out is None else source_as_dict(held_out),
            "benchmarks": [str(path) for path in benchmarks],
            "options": options.as_dict(),
        }
        threading.Thread(target=self._follow, args=(request,), name="quality report", daemon=True).start()

    @property
    def is_done(self) -> bool:
        return self._ended.is_set()

    def wait(self, seconds: float | None = None) -> QualityReport | None:
        """The report; None when it takes longer than `seconds`, or was cancelled. Raises Problem."""
        self._ended.wait(seconds)
        if self._is_cancelled:  # perhaps as it came to its end
            return None
        if isinstance(self._result, Problem):
            raise self._result
        return self._result

    def cancel(self) -> None:
        """Ends the report; its process is gone when this returns, and what it kept on disk."""
        self._is_cancelled = True
        self._child.terminate()
        if not self._ended.wait(_PATIENCE_SECONDS):
            self._child.kill()
            self._ended.wait()
        for folder in work_root().glob(f"{self._child.pid}-*"):  # where it had no time to remove it
            shutil.rmtree(folder, ignore_errors=True)

    def _follow(self, request: dict[str, Any]) -> None:
        assert self._child.stdin is not None and self._child.stdout is not None
        try:
            with suppress(OSError):  # it died at once: its exit is told below
                self._child.stdin.write(json.dumps(request).encode() + b"\n")
                self._child.stdin.flush()
            for line in self._child.stdout:
                if line.endswith(b"\n"):  # else it was killed while it wrote
                    self._take(json.loads(line))
            status = self._child.wait()
            if self._result is None and not self._is_cancelled:
                said = last_line(self._log)
                self._result = Problem(
                    "quality report",
                    f"the process that looks at the data {describe_exit(status)}" + (f": {said}" if said else ""),
                    "Free some memory or look at fewer rows, then start again.",
                )
            self._hearing.close()
            self._result = self._with_tries(self._result)
        finally:
            self._child.stdin.close()
            self._child.stdout.close()
            self._log.close()
            self._ended.set()

    def _with_tries(self, result: QualityReport | Problem | None) -> QualityReport | Problem | None:
        if not isinstance(result, QualityReport):
            return result and self._hearing.beside(result)
        if not (told := self._hearing.told()):
            return result
        fix = "No data needs that: find out where the rows and the tokenizer come from before you train on them."
        found = Finding("ways_out", told, self._hearing.count, 0.0, fix)
        return replace(result, findings=(found, *result.findings))

    def _take(self, message: dict[str, Any]) -> None:
        match message.pop("kind"):
            case "progress":
                self.progress = Progress(**message)
            case "report":
                self._result = QualityReport.from_dict(message["report"])
            case "problem":
                self._result = Problem(**message)


def work_root() -> Path:
    """Where each process that makes a report has a folder, whose name begins with its number."""
    return cache_root() / "quality"


def source_as_dict(source: Source) -> dict[str, Any]:
    return {**asdict(source), "path": str(source.path), "columns": dict(source.columns)}


def source_from_dict(value: dict[str, Any]) -> Source:
    return Source(**{**value, "path": Path(value["path"])})
