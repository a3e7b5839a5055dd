"""`finetui train`: start a run from a spec file, or from a model and data with the rest proposed."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.inputs import check_inputs
from engine.propose import budget_bytes, predict, propose
from engine.run.directory import runs_root
from engine.run.launch import launch
from engine.spec import RunSpec, parse_spec, read_toml, resolve_paths, set_value
from profiles.hardware import probe
from profiles.problem import Problem
from tui.commands import status
from tui.commands.output import Output, table
from tui.commands.watch import add_wait_argument, watch_run
from tui.format import bytes_text

# What stands in a spec file under another name than its option.
_SPEC_KEYS = {"model": "model.path", "data": "data.train", "held_out": "data.held_out"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", nargs="?", type=Path, metavar="SPEC.toml", help="a run's settings")
    parser.add_argument("--model", type=Path, metavar="DIR", help="the base model's folder")
    parser.add_argument(
        "--data", type=Path, action="append", metavar="FILE", help="JSONL to learn from; may be given again"
    )
    parser.add_argument("--held-out", type=Path, metavar="FILE", help="JSONL that is never trained on")
    parser.add_argument("--name", help="the run's name")
    parser.add_argument(
        "--profile",
        metavar="NAME",
        help="the profile of `finetui fit` to take, such as fastest, or a method; the first one without this",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting, such as method.rank=32 or train.epochs=2; may be given again",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the settings as a SPEC.toml; start nothing")
    parser.add_argument("--queue", action="store_true", help="wait until the memory that the run needs is free")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_wait_argument(parser)


@dataclass(frozen=True)
class _Job:
    """What to run, with why each proposed value was chosen (by field; nothing for values that were given)."""

    spec: RunSpec
    reasons: Mapping[str, str]
    predicted_peak_bytes: int
    budget_bytes: int


def run(arguments: argparse.Namespace, output: Output) -> int:
    job = _from_spec(arguments) if arguments.spec else _proposed(arguments)
    if arguments.dry_run:
        _print_job(job, arguments.json, output)
        return status.DONE
    if not arguments.queue:
        _warn_of_memory(job.spec, output)
    started = launch(job.spec, wait=arguments.queue)
    if arguments.json:
        output.json({"run": started.name, "path": str(started.path), **_as_dict(job)}, indent=None)
    else:
        output.lines(_reason_lines(job))
        output.line(f"started {started.name}")
        output.line(f"  it goes on without this terminal; watch it: finetui watch {started.name}")
    return watch_run(started, output, as_json=arguments.json) if arguments.wait else status.DONE


def _from_spec(arguments: argparse.Namespace) -> _Job:
    for name, key in _SPEC_KEYS.items():
        if getattr(arguments, name):
            option = f"--{name.replace('_', '-')}"
            raise Problem(option, "is given together with a spec file", f"Leave it out, or use --set {key}=….")
    if arguments.profile:
        raise Problem("--profile", "is given together with a spec file, which says all", "Leave one of the two out.")
    values = resolve_paths(read_toml(arguments.spec), arguments.spec.absolute().parent)
    values |= {"name": arguments.name} if arguments.name is not None else {}
    for assignment in arguments.set:
        set_value(values, assignment)
    spec = parse_spec(resolve_paths(values, Path.cwd()), str(arguments.spec))
    geometry = check_inputs(spec).geometry
    hardware = probe(runs_root())
    predicted = predict(spec, geometry, hardware)
    return _Job(spec, {}, predicted.peak_bytes, budget_bytes(hardware, predicted))


def _proposed(arguments: argparse.Namespace) -> _Job:
    if not arguments.model or not arguments.data:
        missing = "--data" if arguments.model else "--model" if arguments.data else "a SPEC.toml, or --model and --data"
        raise Problem("finetui train", f"needs {missing}", "Example: finetui train --model DIR --data FILE.jsonl")
    overrides: dict[str, Any] = {}
    for assignment in arguments.set:
        set_value(overrides, assignment)
    held_out = arguments.held_out.expanduser().absolute() if arguments.held_out else None
    proposal = propose(
        arguments.model.expanduser().absolute(),
        [path.expanduser().absolute() for path in arguments.data],
        held_out,
        probe(runs_root()),
        resolve_paths(overrides, Path.cwd()),
        arguments.name,
        arguments.profile,
    )
    return _Job(proposal.spec, proposal.reasons, proposal.estimate.peak_bytes, proposal.budget_bytes)


def _warn_of_memory(spec: RunSpec, output: Output) -> None:
    """Say who holds the memory that the run needs, as it is at this moment."""
    from engine.run.room import room_for

    room = room_for(spec)
    if not room.fits:
        waits = " --queue waits until it is free;" if room.possible else ""
        output.warn(
            f"warning: this run {room.sentence()}.{waits} as it is, the run starts and takes smaller steps when "
            "memory runs out."
        )


def _print_job(job: _Job, as_json: bool, output: Output) -> None:
    if as_json:
        output.json(_as_dict(job))
        return
    output.lines([f"# {line}" for line in _reason_lines(job)])
    output.lines(job.spec.to_toml().splitlines())


def _as_dict(job: _Job) -> dict[str, Any]:
    return {
        "spec": job.spec.model_dump(mode="json"),
        "reasons": dict(job.reasons),
        "predicted_peak_bytes": job.predicted_peak_bytes,
        "budget_bytes": job.budget_bytes,
    }


def _reason_lines(job: _Job) -> list[str]:
    """Each proposed value with its reason, then what memory it takes."""
    rows = [(name, _value(job.spec, name), why) for name, why in job.reasons.items()]
    lines = table(("setting", "value", "why"), rows) if rows else []
    lines.append(f"memory: {bytes_text(job.predicted_peak_bytes)} predicted, {bytes_text(job.budget_bytes)} free")
    return lines


def _value(spec: RunSpec, name: str) -> str:
    value: Any = spec
    for part in name.split("."):
        value = getattr(value, part)
    return str(value)
