"""The report as a child process: a request as JSON on stdin, JSON lines with progress and the report on stdout."""

from __future__ import annotations

import json
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

from engine.child_process import take_stdout
from engine.data.quality.client import source_from_dict
from engine.data.quality.options import ReportOptions
from engine.data.quality.progress import Progress
from engine.run.sealing.telling import tell_tries
from profiles.problem import Problem

# Whoever draws it does so a few times a second.
_TELL_SECONDS = 0.2


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the work folder goes on the way out
    request = json.loads(sys.stdin.readline())
    send = take_stdout()
    tell_tries()
    told = 0.0

    def tell(progress: Progress) -> None:
        nonlocal told
        if time.monotonic() - told >= _TELL_SECONDS or progress.done_bytes == progress.total_bytes:
            told = time.monotonic()
            send("progress", **asdict(progress))

    from engine.data.quality.report import report  # here, so that a fault in it is told

    try:
        held_out = request["held_out"]
        found = report(
            [source_from_dict(each) for each in request["sources"]],
            None if held_out is None else source_from_dict(held_out),
            [Path(each) for each in request["benchmarks"]],
            ReportOptions.from_dict(request["options"]),
            tell,
        )
    except Problem as problem:
        send("problem", **problem.as_dict())
    else:
        send("report", report=found.as_dict())


if __name__ == "__main__":
    main()
