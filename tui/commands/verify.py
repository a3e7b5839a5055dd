"""`finetui verify RUN`: reads all of a run again and says what is not as it was written down."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

from engine.run.evidence.findings import HOLDS, Finding
from engine.run.evidence.remains import find_remains
from engine.run.evidence.verifying import SHORTEST_EXPECTED, Verdict, verify
from profiles.problem import Problem, printable
from tui.commands import status
from tui.commands.output import Output
from tui.commands.show import add_run_argument
from tui.format import bytes_text, counted

_TOLD_SECONDS = 0.1
_ORDER = ("differs", "gone", "unchecked", "note", "matches")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_argument(parser)
    parser.add_argument(
        "--expect", metavar="HEAD", help="the head of the run's audit log, or its beginning, as you wrote it down once"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, output: Output) -> int:
    found, expected = find_remains(arguments.run), _expected(arguments.expect)
    done_bytes, told_at = 0, 0.0

    def read(what: str, count: int) -> None:
        nonlocal done_bytes, told_at
        done_bytes += count
        if output.live and not arguments.json and time.monotonic() - told_at > _TOLD_SECONDS:
            told_at = time.monotonic()
            output.status(f"read {bytes_text(done_bytes)}, now {printable(what)}")

    verdict = verify(found, expected, read)
    output.clear_status()
    if arguments.json:
        output.json({"run": found.name, "path": str(found.path), **verdict.as_dict()})
    else:
        output.lines(_lines(verdict))
        output.line()
        output.lines(_summary(found.name, verdict))
    return status.DONE if verdict.holds else status.FAILED


def _lines(verdict: Verdict) -> list[str]:
    """What differs first, then what is gone or could not be checked, then what matches, a line for a folder."""
    told = [line for kind in _ORDER[:-1] for finding in verdict.of(kind) for line in _finding_lines(finding)]
    folders: dict[str, list[Finding]] = {}
    for finding in verdict.of("matches"):
        folder = str(Path(finding.where).parent) if finding.means == HOLDS else finding.where
        folders.setdefault(folder, []).append(finding)
    for folder, findings in folders.items():
        one = (
            findings[0]
            if len(findings) == 1
            else Finding("matches", folder, f"{len(findings):,} files hold what they held")
        )
        told += _finding_lines(one)
    return told


def _finding_lines(finding: Finding) -> list[str]:
    lines = [f"{finding.kind:<10} {printable(finding.where, 400)}: {printable(finding.means, 400)}"]
    if finding.was or finding.now:
        told = [f"{word} {text}" for word, text in (("was", finding.was), ("is", finding.now)) if text]
        lines.append(f"{'':<10} {', '.join(told)}")
    return lines


def _summary(name: str, verdict: Verdict) -> list[str]:
    count = {kind: len(verdict.of(kind)) for kind in _ORDER}
    looked = counted(count["matches"] + count["differs"], "thing")
    lines = [
        f"{name}: {looked} compared with what was written down, {count['differs'] or 'none'} "
        f"{'differ' if count['differs'] != 1 else 'differs'}."
    ]
    if count["gone"] or count["unchecked"]:
        lines.append(f"{count['gone']:,} gone since, {count['unchecked']:,} could not be checked here.")
    if verdict.head:
        lines += [
            f"head of the audit log: {verdict.head}",
            "  Whoever may write to the run's folder and to finetui's home can write both anew, unnoticed here.",
            "  A head that you keep elsewhere shows it: finetui verify RUN --expect HEAD",
        ]
    return lines


def _expected(given: str | None) -> str:
    if given is None:
        return ""
    if re.fullmatch(rf"[0-9a-fA-F]{{{SHORTEST_EXPECTED},64}}", given) is None:
        raise Problem(
            "--expect",
            f"{printable(repr(given))} is no head of an audit log",
            f"Give its {SHORTEST_EXPECTED} to 64 digits, as `finetui verify` prints them.",
        )
    return given.lower()
