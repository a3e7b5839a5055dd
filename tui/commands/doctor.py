"""`finetui doctor`: is this machine ready, and what to do where it is not."""

from __future__ import annotations

import argparse
import dataclasses

from engine.run.processes.orphans import find_orphans
from profiles.problem import Problem
from tui.commands import status
from tui.commands.checks import Check, all_checks
from tui.commands.offline import offline_checks
from tui.commands.output import Output

_GLYPHS = {"ok": "✓", "warn": "■", "fail": "✗"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--offline",
        action="store_true",
        help="what a machine without a network still lacks for the whole way from a model to a hand-over",
    )
    parser.add_argument("model", nargs="?", help="with --offline: the model's folder; else those of the newest runs")
    parser.add_argument(
        "--end-orphans",
        action="store_true",
        help="end what runs left behind that holds memory; a trainer that still saves may finish that",
    )


def run(arguments: argparse.Namespace, output: Output) -> int:
    if arguments.end_orphans:
        return _end_orphans(arguments.json, output)
    if arguments.model is not None and not arguments.offline:
        raise Problem("finetui doctor", "takes a model only with --offline", "See finetui doctor --help.")
    checks: list[Check] = []
    for name, examine in offline_checks(arguments.model) if arguments.offline else all_checks(output.terminal):
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


def _end_orphans(as_json: bool, output: Output) -> int:
    """End one after the other, and say what became of each."""
    found = find_orphans()
    became = []
    for orphan in found:
        if not as_json:
            output.line(f"ending {orphan.sentence()}")
        became.append(orphan.end())
        if not as_json:
            output.line(f"  {became[-1]}")
    stay = [orphan for orphan in found if orphan.identity.is_alive()]
    if as_json:
        pairs = zip(found, became, strict=True)
        output.json([{"pid": each.identity.pid, "run": each.run.name, "became": what} for each, what in pairs])
    elif not found:
        output.line("no process of a run was left behind")
    return status.FAILED if stay else status.DONE
