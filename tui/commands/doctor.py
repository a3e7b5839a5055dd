"""`finetui doctor`: is this machine ready, and what to do where it is not."""

from __future__ import annotations

import argparse
import dataclasses

from tui.commands import status
from tui.commands.checks import Check, all_checks
from tui.commands.output import Output

_GLYPHS = {"ok": "✓", "warn": "■", "fail": "✗"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, output: Output) -> int:
    checks: list[Check] = []
    for name, examine in all_checks(output.terminal):
        if output.live and not arguments.json:
            output.status(f"{name} …")
        for check in examine():
            checks.append(check)
            if not arguments.json:
                output.line(f"{_GLYPHS[check.level]} {check.level:<4}  {check.name:<9}  {check.found}")
                if check.fix:
                    output.line(f"{'':<19}fix: {check.fix}")
    failed = [check.name for check in checks if check.level == "fail"]
    if arguments.json:
        output.json({"ready": not failed, "checks": [dataclasses.asdict(check) for check in checks]})
    else:
        output.line(f"not ready: {', '.join(failed)}" if failed else "ready")
    return status.FAILED if failed else status.DONE
